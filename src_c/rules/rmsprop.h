/* RMSprop (Hinton 2012), centered (Graves 2013), with momentum; also the root mean square form of Adagrad.
 *
 *     x  = grad_scale g + weight_decay p
 *     v  = alpha v + (1 - alpha) x^2      alpha = (t-1)/t with LRF_MEAN;  0 at t = 1 with LRF_FIRST_GRADIENT
 *     a += (1 - alpha) (x - a),  d = sqrt(max(v - a^2, 0)) + eps      (centered; otherwise d = sqrt(v) + eps;
 *                                                                     an infinite v stays, also beside an infinite a^2)
 *     p -= lr_t x / d                                                 lr_t = lr / (1 + (t-1) lr_decay)
 *     b  = momentum b + x / d,  p -= lr_t b                           (with momentum) */
typedef struct {
    real grad_scale, weight_decay;
    real alpha, one_minus_alpha;
    real momentum;
    real lr; /* decayed */
    real eps;
} LRF_TYPED(rmsprop_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(rmsprop)
{
    k->weight_decay = group->weight_decay;
    k->alpha = group->alpha;
    if (group->flags & LRF_MEAN)
        k->alpha = (double)(t - 1) / (double)t;
    else if (t == 1 && (group->flags & LRF_FIRST_GRADIENT))
        k->alpha = 0;
    k->one_minus_alpha = 1 - k->alpha;
    k->momentum = group->momentum;
    k->lr = decayed_lr(group, t);
    k->eps = eps_of(group);
    return k->lr;
}
#else
LRF_UPDATE(rmsprop, momentum_buffer, square_avg, grad_avg, no_state3)
{
    const int heavy = LRF_HAS(momentum_buffer), centered = LRF_HAS(grad_avg);

    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real v = flush(k.alpha * square_avg[i] + k.one_minus_alpha * x * x);
        const real a = centered ? flush(towards(grad_avg[i], x, k.one_minus_alpha)) : 0;
        const real d = root(centered ? not_negative(v <= LRF_LARGEST ? v - a * a : v) : v) + k.eps;
        const real b = heavy ? flush(k.momentum * momentum_buffer[i] + x / d) : 0;
        const real u = heavy ? k.lr * b : k.lr * x / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        square_avg[i] = v;
        if (centered)
            grad_avg[i] = a;
        if (heavy)
            momentum_buffer[i] = b;
        p[i] = p[i] - u;
    }
}
#endif
