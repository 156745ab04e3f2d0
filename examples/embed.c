/* Fits a line to points by Adam: lrfast in a C program of one thread, without Python.
 *
 *     cc embed.c -I$(python3 -c 'import lrfast; print(lrfast.get_include())') \
 *                -L$(python3 -c 'import lrfast; print(lrfast.get_library_dir())') -llrfast -lm -o embed
 *     ./embed */
#include <math.h>
#include <stdio.h>

#include "lrfast.h"

enum { POINTS = 100, UPDATES = 2000 };

/* Mean squared error of p[0] + p[1] x on the points of y = 2 + 3 x, and its gradient. */
static double loss(const double p[2], double gradient[2])
{
    double sum = 0;
    gradient[0] = gradient[1] = 0;
    for (int i = 0; i < POINTS; i++) {
        const double x = (double)i / POINTS, error = p[0] + p[1] * x - (2 + 3 * x);
        sum += error * error / POINTS;
        gradient[0] += 2 * error / POINTS;
        gradient[1] += 2 * error * x / POINTS;
    }
    return sum;
}

int main(void)
{
    double p[2] = {0, 0}, gradient[2], exp_avg[2] = {0, 0}, exp_avg_sq[2] = {0, 0};
    lrf_tensor tensor = {.param = p, .grad = gradient, .state = {exp_avg, exp_avg_sq}, .count = 2};
    lrf_group group;

    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.dtype = LRF_FLOAT64;
    group.tensors = &tensor;
    group.count = 1;
    group.lr = 0.05;

    printf("lrfast %s on %s\n", lrf_version(), lrf_isa() ? lrf_isa() : "nothing: LRFAST_ISA is wrong");
    for (int t = 0; t < UPDATES; t++) {
        const double now = loss(p, gradient);
        const lrf_status status = lrf_step(&group, 1, NULL, NULL);
        if (status != LRF_OK) {
            fprintf(stderr, "lrf_step: %s\n", lrf_status_text(status));
            return 1;
        }
        if (t % 400 == 0)
            printf("update %4d: loss %.2e, line %.4f + %.4f x\n", t, now, p[0], p[1]);
    }
    printf("update %4d: loss %.2e, line %.4f + %.4f x\n", UPDATES, loss(p, gradient), p[0], p[1]);
    return fabs(p[0] - 2) > 1e-3 || fabs(p[1] - 3) > 1e-3;
}
