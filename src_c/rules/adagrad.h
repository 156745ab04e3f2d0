/* Adagrad (Duchi, Hazan & Singer 2011), the sum form. The mean form is the rule rmsprop with LRF_MEAN.
 *
 *     x  = grad_scale g + weight_decay p
 *     s += x^2
 *     p -= lr / (1 + (t-1) lr_decay) x / (sqrt(s) + eps) */
typedef struct {
    real grad_scale, weight_decay;
    real lr; /* decayed */
    real eps;
} LRF_TYPED(adagrad_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(adagrad)
{
    k->weight_decay = group->weight_decay;
    k->lr = decayed_lr(group, t);
    k->eps = eps_of(group);
    return k->lr;
}
#else
LRF_UPDATE(adagrad, no_state0, sum, no_state2, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real s = sum[i] + x * x;
        const real d = root(s) + k.eps;
        const real u = k.lr * x / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        sum[i] = s;
        p[i] = p[i] - u;
    }
}
#endif
