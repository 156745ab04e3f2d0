/* RMSprop (Hinton 2012), centered (Graves 2013), with momentum; also the root mean square form of Adagrad.
 *
 *     x  = grad_scale g + weight_decay p
 *     v  = alpha v + (1 - alpha) x^2      alpha = (t-1)/t with LRF_MEAN;  0 at t = 1 with LRF_FIRST_GRADIENT
 *     a += (1 - alpha) (x - a),  d = sqrt(max(v - a^2, 0)) + eps      (centered; otherwise d = sqrt(v) + eps)
 *     p -= lr_t x / d                                                 lr_t = lr / (1 + (t-1) lr_decay)
 *     b  = momentum b + x / d,  p -= lr_t b                           (with momentum) */
#ifdef LRF_SCALARS

static void rmsprop_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step)
{
    double alpha = group->alpha;
    if (group->flags & LRF_MEAN)
        alpha = (double)(step - 1) / (double)step;
    else if (step == 1 && (group->flags & LRF_FIRST_GRADIENT))
        alpha = 0;
    scalars->beta2 = alpha;
    scalars->weight2 = 1 - alpha;
    scalars->momentum = group->momentum;
    scalars->lr = decayed_lr(group, step);
    scalars->eps = group->eps;
}

#else

LRF_UPDATE(rmsprop, no_state0, square_avg, no_state2)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real alpha = (real)scalars->beta2, weight = (real)scalars->weight2;
    const real lr = (real)scalars->lr, eps = (real)scalars->eps;

    for (size_t i = 0; i < n; i++) {
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real v = flush(alpha * square_avg[i] + weight * x * x);
        const real d = root(v) + eps;
        const real u = lr * x / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        LRF_TRACE(last, 0);
        square_avg[i] = v;
        p[i] = p[i] - u;
    }
}

LRF_UPDATE(rmsprop_momentum, momentum_buffer, square_avg, no_state2)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real alpha = (real)scalars->beta2, weight = (real)scalars->weight2;
    const real momentum = (real)scalars->momentum;
    const real lr = (real)scalars->lr, eps = (real)scalars->eps;
    const real last_lr = (real)scalars->last_lr;

    for (size_t i = 0; i < n; i++) {
        LRF_TRACE(last, last_lr * momentum_buffer[i]);
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real v = flush(alpha * square_avg[i] + weight * x * x);
        const real d = root(v) + eps;
        const real b = flush(momentum * momentum_buffer[i] + x / d);
        const real u = lr * b;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        square_avg[i] = v;
        momentum_buffer[i] = b;
        p[i] = p[i] - u;
    }
}

LRF_UPDATE(rmsprop_centered, no_state0, square_avg, grad_avg)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real alpha = (real)scalars->beta2, weight = (real)scalars->weight2;
    const real lr = (real)scalars->lr, eps = (real)scalars->eps;

    for (size_t i = 0; i < n; i++) {
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real v = flush(alpha * square_avg[i] + weight * x * x);
        const real a = flush(towards(grad_avg[i], x, weight));
        const real d = root(not_negative(v - a * a)) + eps;
        const real u = lr * x / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        LRF_TRACE(last, 0);
        square_avg[i] = v;
        grad_avg[i] = a;
        p[i] = p[i] - u;
    }
}

LRF_UPDATE(rmsprop_centered_momentum, momentum_buffer, square_avg, grad_avg)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real alpha = (real)scalars->beta2, weight = (real)scalars->weight2;
    const real momentum = (real)scalars->momentum;
    const real lr = (real)scalars->lr, eps = (real)scalars->eps;
    const real last_lr = (real)scalars->last_lr;

    for (size_t i = 0; i < n; i++) {
        LRF_TRACE(last, last_lr * momentum_buffer[i]);
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real v = flush(alpha * square_avg[i] + weight * x * x);
        const real a = flush(towards(grad_avg[i], x, weight));
        const real d = root(not_negative(v - a * a)) + eps;
        const real b = flush(momentum * momentum_buffer[i] + x / d);
        const real u = lr * b;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        square_avg[i] = v;
        grad_avg[i] = a;
        momentum_buffer[i] = b;
        p[i] = p[i] - u;
    }
}

#endif
