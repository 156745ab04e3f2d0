/* NAdam (Dozat 2016, "Incorporating Nesterov momentum into Adam"): Adam whose step looks ahead, with a momentum mu that
 * grows towards beta1.
 *
 *     x   = grad_scale g + weight_decay p
 *     m  += (1 - beta1) (x - m)
 *     v   = beta2 v + (1 - beta2) x^2
 *     mu  = beta1 (1 - 0.96^(t momentum_decay) / 2),   mu' that of t + 1,   P *= mu, P = 1 before update 1
 *     p   = (1 - lr decoupled_weight_decay) p
 *           - lr ((1 - mu) / (1 - P) x + mu' / (1 - P mu') m) / (sqrt(v) / sqrt(c2) + eps),   c2 = 1 - beta2^t
 *
 * P is carried from step to step: mu_product. */
typedef struct {
    real grad_scale, weight_decay;
    real one_minus_beta1, beta2, one_minus_beta2;
    real lr_now;   /* of the gradient: lr (1 - mu) / (1 - P) */
    real lr_ahead; /* of the first moment: lr mu' / (1 - P mu') */
    real per_root; /* bias correction of the root: 1 / sqrt(c2) */
    real eps;
    real keep; /* of the parameter: 1 - lr decoupled_weight_decay */
} LRF_TYPED(nadam_scalars);

#ifdef LRF_COMPUTE
static double nadam_momentum(const lrf_group *group, double t)
{
    return group->beta1 * (1 - 0.5 * lrf_power(0.96, t * group->momentum_decay));
}

LRF_COMPUTE(nadam)
{
    const double mu = nadam_momentum(group, (double)t), mu_next = nadam_momentum(group, (double)t + 1);
    const double mu_product = t == 1 ? mu : carried[0] * mu;

    k->weight_decay = group->weight_decay;
    k->one_minus_beta1 = 1 - group->beta1;
    k->beta2 = group->beta2;
    k->one_minus_beta2 = 1 - group->beta2;
    k->lr_now = group->lr * (1 - mu) / (1 - mu_product);
    k->lr_ahead = group->lr * mu_next / (1 - mu_product * mu_next);
    k->per_root = 1 / sqrt(lrf_one_minus_power(group->beta2, t));
    k->eps = eps_of(group);
    k->keep = 1 - group->lr * group->decoupled_weight_decay;
    carried[0] = mu_product;
    return group->lr;
}
#else
LRF_UPDATE(nadam, exp_avg, exp_avg_sq, no_state2, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real m = flush(towards(exp_avg[i], x, k.one_minus_beta1));
        const real v = flush(k.beta2 * exp_avg_sq[i] + k.one_minus_beta2 * x * x);
        const real d = root(v) * k.per_root + k.eps;
        const real u = (k.lr_now * x + k.lr_ahead * m) / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        p[i] = k.keep * p[i] - u;
    }
}
#endif
