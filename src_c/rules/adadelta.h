/* Adadelta (Zeiler 2012, arXiv:1212.5701): the step has the size of past steps, in units of the parameter.
 *
 *     x = grad_scale g + weight_decay p
 *     v = rho v + (1 - rho) x^2
 *     u = sqrt(a + eps) / sqrt(v + eps) x
 *     a = rho a + (1 - rho) u^2
 *     p -= lr u
 *
 * For statistics its denominator is sqrt(v + eps) / sqrt(a + eps), so that lr / denominator is what x is multiplied
 * with; eps stands inside the roots, and never dominates in their sense. */
typedef struct {
    real grad_scale, weight_decay;
    real rho, one_minus_rho;
    real lr;
    real eps;
} LRF_TYPED(adadelta_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(adadelta)
{
    k->weight_decay = group->weight_decay;
    k->rho = group->rho;
    k->one_minus_rho = 1 - group->rho;
    k->lr = group->lr;
    k->eps = group->eps != 0 ? group->eps : eps_of(group) * eps_of(group);
    return group->lr;
}
#else
LRF_UPDATE(adadelta, no_state0, square_avg, acc_delta, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real v = flush(k.rho * square_avg[i] + k.one_minus_rho * x * x);
        const real factor = root(acc_delta[i] + k.eps) / root(v + k.eps);
        const real delta = factor * x;
        const real u = k.lr * delta;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1 / factor);
        square_avg[i] = v;
        acc_delta[i] = flush(k.rho * acc_delta[i] + k.one_minus_rho * delta * delta);
        p[i] = p[i] - u;
    }
}
#endif
