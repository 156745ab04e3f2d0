/* Adagrad (Duchi, Hazan & Singer 2011), the sum form. The mean form is the rule rmsprop with LRF_MEAN.
 *
 *     x  = grad_scale g + weight_decay p
 *     s += x^2
 *     p -= lr / (1 + (t-1) lr_decay) x / (sqrt(s) + eps) */
#ifdef LRF_SCALARS

static void adagrad_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step)
{
    scalars->lr = decayed_lr(group, step);
    scalars->eps = group->eps;
}

#else

LRF_UPDATE(adagrad, no_state0, sum, no_state2)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real lr = (real)scalars->lr, eps = (real)scalars->eps;

    for (size_t i = 0; i < n; i++) {
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real s = sum[i] + x * x;
        const real d = root(s) + eps;
        const real u = lr * x / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        LRF_TRACE(last, 0);
        sum[i] = s;
        p[i] = p[i] - u;
    }
}

#endif
