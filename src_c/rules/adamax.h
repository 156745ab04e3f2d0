/* Adamax (Kingma & Ba 2015, arXiv:1412.6980, section 7.1): Adam with the largest gradient so far, which fades, in place
 * of the root. eps as PyTorch has it, added to each gradient's size, keeps that from being denormal.
 *
 *     x  = grad_scale g + weight_decay p
 *     m += (1 - beta1) (x - m)
 *     s  = max(|x| + eps, beta2 s)        NaN if either is; in this order gcc makes vectors of it
 *     p -= lr/c1 m / s,    c1 = 1 - beta1^t */
typedef struct {
    real grad_scale, weight_decay;
    real one_minus_beta1, beta2;
    real lr; /* with the bias correction of m: lr / c1 */
    real eps;
} LRF_TYPED(adamax_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(adamax)
{
    k->weight_decay = group->weight_decay;
    k->one_minus_beta1 = 1 - group->beta1;
    k->beta2 = group->beta2;
    k->lr = group->lr / lrf_one_minus_power(group->beta1, t);
    k->eps = eps_of(group);
    return group->lr;
}
#else
LRF_UPDATE(adamax, exp_avg, no_state1, exp_inf, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real m = flush(towards(exp_avg[i], x, k.one_minus_beta1));
        const real d = larger(magnitude(x) + k.eps, k.beta2 * exp_inf[i]);
        const real u = k.lr * m / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        exp_avg[i] = m;
        exp_inf[i] = d;
        p[i] = p[i] - u;
    }
}
#endif
