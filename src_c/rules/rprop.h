/* Rprop (Riedmiller & Braun 1993), as PyTorch has it: each element has a step size of its own, which grows while its
 * gradient keeps its sign and shrinks where it turns around; there the element rests for an update.
 *
 *     x = grad_scale g
 *     s = limited(s eta),   step_size_min <= s <= step_size_max;   s = limited(lr) at t = 1
 *     eta = etaplus where x prev > 0;  etaminus where x prev < 0, and there x = 0;  1 where x prev = 0
 *     p -= sign(x) s,  prev = x
 *
 * For statistics its rate is 1 and its denominator 1 / s, so that rate / denominator is the step size. */
typedef struct {
    real grad_scale;
    real etaminus, etaplus;
    real step_size_min, step_size_max;
    real keep, lr; /* s = keep s + lr: 0 and lr at t = 1, then 1 and 0 */
} LRF_TYPED(rprop_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(rprop)
{
    k->etaminus = group->etaminus;
    k->etaplus = group->etaplus;
    k->step_size_min = group->step_size_min;
    k->step_size_max = group->step_size_max;
    k->keep = t == 1 ? 0 : 1;
    k->lr = t == 1 ? group->lr : 0;
    return 1;
}
#else
LRF_UPDATE(rprop, prev, no_state1, step_size, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i];
        const real agreement = x * prev[i];
        const real eta = agreement > 0 ? k.etaplus : agreement < 0 ? k.etaminus : 1;
        const real size = (k.keep * step_size[i] + k.lr) * eta;
        const real enough = size < k.step_size_min ? k.step_size_min : size;
        const real limited = enough > k.step_size_max ? k.step_size_max : enough;
        const real followed = agreement < 0 ? 0 : x;
        const real u = sign_of(followed) * limited;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1 / limited);
        prev[i] = followed;
        step_size[i] = limited;
        p[i] = p[i] - u;
    }
}
#endif
