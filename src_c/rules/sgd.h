/* SGD (Robbins & Monro 1951), heavy ball (Polyak 1964), Nesterov's momentum (Sutskever et al. 2013).
 *
 *     x = grad_scale g + weight_decay p
 *     sgd       p -= lr x
 *     momentum  b  = momentum b + (1 - dampening) x      (first update: b = x)
 *               p -= lr b                                (Nesterov: p -= lr (x + momentum b)) */
typedef struct {
    real grad_scale, weight_decay;
    real momentum, one_minus_dampening;
    real lr;      /* of the buffer; without momentum, of the gradient */
    real grad_lr; /* of the gradient beside the buffer: 0 but for Nesterov */
} LRF_TYPED(sgd_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(sgd)
{
    const int nesterov = (group->flags & LRF_NESTEROV) != 0;
    k->weight_decay = group->weight_decay;
    k->momentum = t == 1 ? 0 : group->momentum;
    k->one_minus_dampening = t == 1 ? 1 : 1 - group->dampening;
    k->lr = nesterov ? group->lr * group->momentum : group->lr;
    k->grad_lr = nesterov ? group->lr : 0;
    return group->lr;
}
#else
LRF_UPDATE(sgd, momentum_buffer, no_state1, no_state2, no_state3)
{
    const int heavy = LRF_HAS(momentum_buffer);

    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real b = heavy ? flush(k.momentum * momentum_buffer[i] + k.one_minus_dampening * x) : 0;
        const real u = heavy ? k.grad_lr * x + k.lr * b : k.lr * x;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1);
        if (heavy)
            momentum_buffer[i] = b;
        p[i] = p[i] - u;
    }
}
#endif
