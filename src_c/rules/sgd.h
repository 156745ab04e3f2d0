/* SGD (Robbins & Monro 1951), heavy ball (Polyak 1964), Nesterov's momentum (Sutskever et al. 2013).
 *
 *     x = grad_scale g + weight_decay p
 *     sgd       p -= lr x
 *     momentum  b  = momentum b + (1 - dampening) x      (first update: b = x)
 *               p -= lr b                                (Nesterov: p -= lr (x + momentum b)) */
#ifdef LRF_SCALARS

static void sgd_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step)
{
    const int nesterov = (group->flags & LRF_NESTEROV) != 0;
    scalars->lr = nesterov ? group->lr * group->momentum : group->lr;
    scalars->grad_lr = nesterov ? group->lr : 0;
    scalars->momentum = step == 1 ? 0 : group->momentum;
    scalars->grad_weight = step == 1 ? 1 : 1 - group->dampening;
}

#else

LRF_UPDATE(sgd, no_state0, no_state1, no_state2)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real lr = (real)scalars->lr;

    for (size_t i = 0; i < n; i++) {
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real u = lr * x;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1);
        LRF_TRACE(last, 0);
        p[i] = p[i] - u;
    }
}

LRF_UPDATE(momentum, momentum_buffer, no_state1, no_state2)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real lr = (real)scalars->lr, grad_lr = (real)scalars->grad_lr;
    const real momentum = (real)scalars->momentum, grad_weight = (real)scalars->grad_weight;
    const real last_lr = (real)scalars->last_lr;

    for (size_t i = 0; i < n; i++) {
        LRF_TRACE(last, last_lr * momentum_buffer[i]);
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real b = flush(momentum * momentum_buffer[i] + grad_weight * x);
        const real u = grad_lr * x + lr * b;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1);
        momentum_buffer[i] = b;
        p[i] = p[i] - u;
    }
}

#endif
