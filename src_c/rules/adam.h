/* Adam (Kingma & Ba 2015, arXiv:1412.6980), AMSGrad (Reddi et al. 2018, arXiv:1904.09237), and AdamW
 * (Loshchilov & Hutter 2019, arXiv:1711.05101) by decoupled_weight_decay, which is neutral at 0.
 *
 *     x  = grad_scale g + weight_decay p
 *     m += (1 - beta1) (x - m)
 *     v  = beta2 v + (1 - beta2) x^2
 *     p  = (1 - lr decoupled_weight_decay) p - lr/c1 m / (sqrt(v) / sqrt(c2) + eps),    ci = 1 - betai^t
 *     AMSGrad keeps the maximum of all v so far and divides by its root instead */
typedef struct {
    real grad_scale, weight_decay;
    real one_minus_beta1, beta2, one_minus_beta2;
    real lr;       /* with its bias correction: lr / c1 */
    real per_root; /* bias correction of the root: 1 / sqrt(c2) */
    real eps;
    real keep; /* of the parameter: 1 - lr decoupled_weight_decay */
} LRF_TYPED(adam_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(adam)
{
    k->weight_decay = group->weight_decay;
    k->one_minus_beta1 = 1 - group->beta1;
    k->beta2 = group->beta2;
    k->one_minus_beta2 = 1 - group->beta2;
    k->lr = group->lr / lrf_one_minus_power(group->beta1, t);
    k->per_root = 1 / sqrt(lrf_one_minus_power(group->beta2, t));
    k->eps = eps_of(group);
    k->keep = 1 - group->lr * group->decoupled_weight_decay;
    return group->lr;
}
#else
LRF_UPDATE(adam, exp_avg, exp_avg_sq, max_exp_avg_sq, no_state3)
{
    const int keeps_largest = LRF_HAS(max_exp_avg_sq);
    const int divides = keeps_largest || k.per_root > 0; /* RAdam does not always, and v may be infinite then */

    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real m = flush(towards(exp_avg[i], x, k.one_minus_beta1));
        const real v = flush(k.beta2 * exp_avg_sq[i] + k.one_minus_beta2 * x * x);
        const real largest = keeps_largest ? larger(max_exp_avg_sq[i], v) : v;
        const real d = divides ? root(largest) * k.per_root + k.eps : k.eps;
        const real u = k.lr * m / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        if (keeps_largest)
            max_exp_avg_sq[i] = largest;
        p[i] = k.keep * p[i] - u;
    }
}
#endif
