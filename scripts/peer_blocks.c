/* Encodes tensors with ggml's own library and gives back what they decode to, with the time that it took.
 *
 *     peer_blocks TYPE TENSORS ROWS COLS WEIGHTS IMPORTANCE|- DECODED ROUNDS
 *
 * TYPE is the name of the type in any case, WEIGHTS a file of f32 [TENSORS, ROWS, COLS], IMPORTANCE one of f32 [TENSORS, COLS],
 * DECODED the file that is written, f32 as WEIGHTS. Types that insist on importance get ones where there is none. Prints the least seconds of ROUNDS passes for encoding and for
 * decoding. Built by scripts/compare_encoders.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "ggml.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static float *load(const char *path, size_t count) {
    float *x = malloc(count * sizeof *x);
    FILE *f = fopen(path, "rb");
    if (!x || !f || fread(x, sizeof *x, count, f) != count) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    return x;
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "usage: %s TYPE TENSORS ROWS COLS WEIGHTS IMPORTANCE|- DECODED ROUNDS\n", argv[0]);
        return 2;
    }
    int type = 0;
    while (type < GGML_TYPE_COUNT && (!ggml_type_name(type) || strcasecmp(ggml_type_name(type), argv[1]))) {
        type++;
    }
    if (type == GGML_TYPE_COUNT) {
        fprintf(stderr, "%s: no such type\n", argv[1]);
        return 1;
    }
    size_t tensors = strtoull(argv[2], NULL, 10), rows = strtoull(argv[3], NULL, 10), cols = strtoull(argv[4], NULL, 10);
    int rounds = atoi(argv[8]);
    size_t each = rows * cols, bytes = rows * ggml_row_size(type, (int64_t) cols);
    float *x = load(argv[5], tensors * each), *y = malloc(tensors * each * sizeof *y);
    float *w = strcmp(argv[6], "-") ? load(argv[6], tensors * cols) : NULL;
    char *packed = malloc(tensors * bytes);

    if (!w && ggml_quantize_requires_imatrix(type)) {
        w = malloc(tensors * cols * sizeof *w);
        for (size_t j = 0; j < tensors * cols; j++) {
            w[j] = 1.0f;
        }
    }
    ggml_quantize_init(type);
    double encode = 1e9, decode = 1e9;
    for (int r = 0; r < rounds; r++) {
        double a = now();
        for (size_t t = 0; t < tensors; t++) {
            ggml_quantize_chunk(type, x + t * each, packed + t * bytes, 0, (int64_t) rows, (int64_t) cols, w ? w + t * cols : NULL);
        }
        double b = now();
        for (size_t t = 0; t < tensors; t++) {
            ggml_get_type_traits(type)->to_float(packed + t * bytes, y + t * each, (int64_t) each);
        }
        double c = now();
        encode = b - a < encode ? b - a : encode;
        decode = c - b < decode ? c - b : decode;
    }
    FILE *f = fopen(argv[7], "wb");
    if (!f || fwrite(y, sizeof *y, tensors * each, f) != tensors * each || fclose(f)) {
        fprintf(stderr, "%s: cannot be written\n", argv[7]);
        return 1;
    }
    printf("%.9f %.9f\n", encode, decode);
    return 0;
}
