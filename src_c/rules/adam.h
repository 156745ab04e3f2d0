/* Adam (Kingma & Ba 2015, arXiv:1412.6980), AMSGrad (Reddi et al. 2018, arXiv:1904.09237), and AdamW
 * (Loshchilov & Hutter 2019, arXiv:1711.05101) by decoupled_weight_decay, which is neutral at 0.
 *
 *     x  = grad_scale g + weight_decay p
 *     m += (1 - beta1) (x - m)
 *     v  = beta2 v + (1 - beta2) x^2
 *     p  = (1 - lr decoupled_weight_decay) p - lr/c1 m / (sqrt(v) / sqrt(c2) + eps),    ci = 1 - betai^t
 *     AMSGrad keeps the maximum of all v so far and divides by its root instead */
#ifdef LRF_SCALARS

static void adam_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step)
{
    scalars->weight1 = 1 - group->beta1;
    scalars->beta2 = group->beta2;
    scalars->weight2 = 1 - group->beta2;
    scalars->lr = group->lr / lrf_one_minus_power(group->beta1, step);
    scalars->correction2 = 1 / sqrt(lrf_one_minus_power(group->beta2, step));
    scalars->keep = 1 - group->lr * group->decoupled_weight_decay;
    scalars->eps = group->eps;
}

#else

LRF_UPDATE(adam, exp_avg, exp_avg_sq, no_state2)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real weight1 = (real)scalars->weight1;
    const real beta2 = (real)scalars->beta2, weight2 = (real)scalars->weight2;
    const real lr = (real)scalars->lr, correction2 = (real)scalars->correction2;
    const real keep = (real)scalars->keep, eps = (real)scalars->eps;
    const real last_lr = (real)scalars->last_lr, last_correction2 = (real)scalars->last_correction2;
    const real last_eps = (real)scalars->last_eps;

    for (size_t i = 0; i < n; i++) {
        LRF_TRACE(last, last_lr * exp_avg[i] / (root(exp_avg_sq[i]) * last_correction2 + last_eps));
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real m = flush(towards(exp_avg[i], x, weight1));
        const real v = flush(beta2 * exp_avg_sq[i] + weight2 * x * x);
        const real d = root(v) * correction2 + eps;
        const real u = lr * m / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        p[i] = keep * p[i] - u;
    }
}

LRF_UPDATE(amsgrad, exp_avg, exp_avg_sq, max_exp_avg_sq)
{
    const real grad_scale = (real)scalars->grad_scale, weight_decay = (real)scalars->weight_decay;
    const real weight1 = (real)scalars->weight1;
    const real beta2 = (real)scalars->beta2, weight2 = (real)scalars->weight2;
    const real lr = (real)scalars->lr, correction2 = (real)scalars->correction2;
    const real keep = (real)scalars->keep, eps = (real)scalars->eps;
    const real last_lr = (real)scalars->last_lr, last_correction2 = (real)scalars->last_correction2;
    const real last_eps = (real)scalars->last_eps;

    for (size_t i = 0; i < n; i++) {
        LRF_TRACE(last, last_lr * exp_avg[i] / (root(max_exp_avg_sq[i]) * last_correction2 + last_eps));
        const real x = grad_scale * g[i] + weight_decay * p[i];
        const real m = flush(towards(exp_avg[i], x, weight1));
        const real v = flush(beta2 * exp_avg_sq[i] + weight2 * x * x);
        const real largest = larger(max_exp_avg_sq[i], v);
        const real d = root(largest) * correction2 + eps;
        const real u = lr * m / d;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, d);
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        max_exp_avg_sq[i] = largest;
        p[i] = keep * p[i] - u;
    }
}

#endif
