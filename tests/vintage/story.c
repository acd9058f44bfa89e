/* Reads llama2.c files as the programs for old machines do, and lets the model tell a story.
 *
 *     story [-w] MODEL TOKENIZER STEPS
 *
 * Numbers are taken as they lie in the file: nothing is swapped, so the file must be in the machine's own byte order.
 * Versions 0 (floats) and 2 (bytes in groups, with inputs rounded to bytes too) are known. The story begins with BOS,
 * goes on with the most probable token each time, and ends at BOS or after STEPS tokens.
 *
 * Those programs notice little: a file that does not fit gives them nonsense, or nothing. This one refuses what they
 * would take for weights and is none: numbers in the other order, a file too short or too long, tables of angles that
 * are not there, tokens longer than the longest.
 *
 * With -w the rules of the Windows 98 port hold: version 0 only, and 96 MiB in all, of which every allocation takes a
 * multiple of 16 KiB unless it is larger than 4 MiB. What it comes to is told on standard error.
 *
 * C89, as compilers for these machines know no other. Sums are floats, added up from the left. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* C89 has these for doubles only, but keeps the names free for floats, and old libraries have them. */
float sqrtf(float), expf(float), powf(float, float), sinf(float), cosf(float);

#define MAGIC 0x616b3432U
#define BOS 1
#define HEADER 256L
/* Numbers in the other byte order are at least this, unless they are multiples of 256. */
#define LARGEST (1L << 24)
#define KIB 1024.0
#define MIB (1024.0 * KIB)

/* One kind of matrix, all layers one after the other: either floats, or bytes with a scale for each group. */
struct matrix {
    float *floats, *scales;
    signed char *bytes;
};

static struct {
    int dim, hidden, layers, heads, kv_heads, vocab, seq;
} shape;
static int version, group, shared, head, kv;

static struct matrix embedding, classifier, wq, wk, wv, wo, gate, down, up;
static float *norm_attention, *norm_ffn, *norm_end;
static float *x, *y, *sum, *q, *scores, *h, *h2, *logits, *keys, *values, *scales_in;
static signed char *bytes_in;
static char **pieces;

static FILE *file;
static const char *name;
static long at;
static int windows;
static double accounted;

static void refuse_if(int so, const char *why)
{
    if (so) {
        fprintf(stderr, "%s: %s\n", name, why);
        exit(1);
    }
}

/* The count is a double so that no product is too large for the check. */
static void *take(double count, size_t size)
{
    double bytes = count * (double)size, page = 16 * KIB;
    void *p;

    refuse_if(bytes > 2147483647.0, "more than 2 GiB in one piece");
    accounted += bytes > 4 * MIB ? bytes : page * (long)((bytes + page - 1) / page);
    refuse_if(windows && accounted > 96 * MIB, "needs more than 96 MiB");
    p = calloc((size_t)count, size);
    refuse_if(!p, "not enough memory");
    return p;
}

static void open_file(const char *path)
{
    name = path;
    at = 0;
    file = fopen(path, "rb");
    refuse_if(!file, "cannot be opened");
}

static void seek(long to)
{
    at = to;
    refuse_if(fseek(file, at, SEEK_SET), "the file is too short");
}

/* What comes next in the file. */
static void read_into(void *to, size_t count, size_t size)
{
    refuse_if(fread(to, size, count, file) != count, "the file is too short");
    at += (long)(count * size);
}

static void close_file(void)
{
    refuse_if(getc(file) != EOF, "the file is too long");
    fclose(file);
}

static float *read_floats(double count)
{
    float *p = take(count, sizeof *p);
    seek(at);
    read_into(p, (size_t)count, sizeof *p);
    return p;
}

static void read_matrix(struct matrix *m, int layers, int rows, int cols)
{
    double each = (double)rows * cols;
    int l;

    if (version == 0) {
        m->floats = read_floats(layers * each);
        return;
    }
    m->bytes = take(layers * each, 1);
    m->scales = take(layers * each / group, sizeof *m->scales);
    for (l = 0; l < layers; l++) {
        seek(at);
        read_into(m->bytes + l * (long)each, (size_t)each, 1);
        read_into(m->scales + l * (long)(each / group), (size_t)(each / group), sizeof *m->scales);
    }
}

/* The angle by which pair i of a head is turned at a position. */
static float angle(int pos, int i)
{
    return (float)pos * (1.0f / powf(10000.0f, (float)(2 * i) / (float)head));
}

/* Most readers skip these tables and compute them, early ones used them: so they must be right. */
static void read_angles(void)
{
    int sines, pos, i;

    for (sines = 0; sines < 2; sines++) {
        for (pos = 0; pos < shape.seq; pos++) {
            for (i = 0; i < head / 2; i++) {
                float there, off;
                read_into(&there, 1, sizeof there);
                off = there - (sines ? sinf(angle(pos, i)) : cosf(angle(pos, i)));
                /* So written that NaN is refused. */
                refuse_if(!(off > -1e-3f && off < 1e-3f), "no table of angles where one should be");
            }
        }
    }
}

static void read_header(void)
{
    unsigned int first;
    unsigned char flag;
    int *fields = &shape.dim, i;

    read_into(&first, 1, 4);
    if (first == MAGIC) {
        read_into(&version, 1, 4);
        refuse_if(version != 2 || windows, "a version that is not run here");
    } else {
        seek(0);
    }
    read_into(&shape, 7, 4);
    shared = shape.vocab > 0;
    if (version == 2) {
        read_into(&flag, 1, 1);
        read_into(&group, 1, 4);
        shared = flag;
        seek(HEADER);
    } else if (!shared) {
        shape.vocab = -shape.vocab;
    }
    for (i = 0; i < 7; i++) {
        refuse_if(fields[i] < 1 || fields[i] >= LARGEST, "no header in this machine's byte order");
    }
    refuse_if(shape.dim % shape.heads || shape.heads % shape.kv_heads || shape.dim / shape.heads % 2,
        "heads that do not divide what they should");
    refuse_if(version == 2 && (group < 1 || shape.dim % group || shape.hidden % group),
        "groups that do not divide the rows");
    head = shape.dim / shape.heads;
    kv = head * shape.kv_heads;
}

static void prepare_state(void)
{
    double cache = (double)shape.layers * shape.seq * kv;
    int most = shape.dim > shape.hidden ? shape.dim : shape.hidden;

    x = take(shape.dim, sizeof *x);
    y = take(shape.dim, sizeof *y);
    sum = take(shape.dim, sizeof *sum);
    q = take(shape.dim, sizeof *q);
    scores = take((double)shape.heads * shape.seq, sizeof *scores);
    h = take(shape.hidden, sizeof *h);
    h2 = take(shape.hidden, sizeof *h2);
    logits = take(shape.vocab, sizeof *logits);
    keys = take(cache, sizeof *keys);
    values = take(cache, sizeof *values);
    if (version == 2) {
        bytes_in = take(most, 1);
        scales_in = take(most / group, sizeof *scales_in);
    }
}

static void read_model(const char *path)
{
    int n, d, f;

    open_file(path);
    read_header();
    prepare_state();
    n = shape.layers;
    d = shape.dim;
    f = shape.hidden;
    if (version == 2) {
        norm_attention = read_floats((double)n * d);
        norm_ffn = read_floats((double)n * d);
        norm_end = read_floats(d);
    }
    read_matrix(&embedding, 1, shape.vocab, d);
    if (version == 0) {
        norm_attention = read_floats((double)n * d);
    }
    read_matrix(&wq, n, d, d);
    read_matrix(&wk, n, kv, d);
    read_matrix(&wv, n, kv, d);
    read_matrix(&wo, n, d, d);
    if (version == 0) {
        norm_ffn = read_floats((double)n * d);
    }
    read_matrix(&gate, n, f, d);
    read_matrix(&down, n, d, f);
    read_matrix(&up, n, f, d);
    if (version == 0) {
        norm_end = read_floats(d);
        read_angles();
    }
    classifier = embedding;
    if (!shared) {
        read_matrix(&classifier, 1, shape.vocab, d);
    }
    close_file();
}

static void read_tokenizer(const char *path)
{
    int i, longest, length;
    float score;

    open_file(path);
    read_into(&longest, 1, 4);
    pieces = take(shape.vocab, sizeof *pieces);
    take(shape.vocab, sizeof score); /* The scores, which only a prompt would need. */
    for (i = 0; i < shape.vocab; i++) {
        read_into(&score, 1, 4);
        read_into(&length, 1, 4);
        refuse_if(length < 1 || length > longest || longest >= LARGEST, "the length of a token, which cannot be");
        pieces[i] = take(length + 1, 1);
        read_into(pieces[i], (size_t)length, 1);
    }
    close_file();
}

static void normalise(float *to, const float *from, const float *weights)
{
    float squares = 0.0f;
    int i;

    for (i = 0; i < shape.dim; i++) {
        squares += from[i] * from[i];
    }
    squares = squares / (float)shape.dim + 1e-5f;
    squares = 1.0f / sqrtf(squares);
    for (i = 0; i < shape.dim; i++) {
        to[i] = weights[i] * (squares * from[i]);
    }
}

static void add(float *to, const float *what)
{
    int i;

    for (i = 0; i < shape.dim; i++) {
        to[i] += what[i];
    }
}

/* The inputs of a matrix as bytes: the largest of a group becomes 127, halves go away from zero. */
static void round_inputs(const float *in, int cols)
{
    int g, i;

    for (g = 0; g < cols / group; g++) {
        const float *from = in + g * group;
        float most = 0.0f;
        for (i = 0; i < group; i++) {
            float size = from[i] < 0 ? -from[i] : from[i];
            most = size > most ? size : most;
        }
        scales_in[g] = most / 127.0f;
        for (i = 0; i < group; i++) {
            float ratio = most > 0 ? from[i] / scales_in[g] : 0.0f;
            bytes_in[g * group + i] = (signed char)(int)(ratio < 0 ? (double)ratio - 0.5 : (double)ratio + 0.5);
        }
    }
}

static void multiply(float *out, const struct matrix *m, int layer, const float *in, int rows, int cols)
{
    long start = (long)layer * rows * cols;
    int r, c, g;

    if (version == 2) {
        round_inputs(in, cols);
    }
    for (r = 0; r < rows; r++, start += cols) {
        float total = 0.0f;
        if (version == 0) {
            const float *row = m->floats + start;
            for (c = 0; c < cols; c++) {
                total += row[c] * in[c];
            }
        } else {
            const signed char *row = m->bytes + start;
            const float *scales = m->scales + start / group;
            for (g = 0; g < cols / group; g++) {
                int whole = 0;
                for (c = g * group; c < (g + 1) * group; c++) {
                    whole += row[c] * bytes_in[c];
                }
                total += (float)whole * scales[g] * scales_in[g];
            }
        }
        out[r] = total;
    }
}

static void turn(float *v, int size, int pos)
{
    int i;

    for (i = 0; i < size; i += 2) {
        float a = angle(pos, i % head / 2), c = cosf(a), s = sinf(a), v0 = v[i], v1 = v[i + 1];
        v[i] = v0 * c - v1 * s;
        v[i + 1] = v0 * s + v1 * c;
    }
}

/* What one head finds at the positions so far. */
static void attend(float *out, const float *query, const float *k, const float *v, float *weights, int pos)
{
    float most = 0.0f, total = 0.0f;
    int t, i;

    for (t = 0; t <= pos; t++) {
        float dot = 0.0f;
        for (i = 0; i < head; i++) {
            dot += query[i] * k[(long)t * kv + i];
        }
        weights[t] = dot / sqrtf((float)head);
        most = t == 0 || weights[t] > most ? weights[t] : most;
    }
    for (t = 0; t <= pos; t++) {
        weights[t] = expf(weights[t] - most);
        total += weights[t];
    }
    for (i = 0; i < head; i++) {
        out[i] = 0.0f;
    }
    for (t = 0; t <= pos; t++) {
        float weight = weights[t] / total;
        for (i = 0; i < head; i++) {
            out[i] += weight * v[(long)t * kv + i];
        }
    }
}

/* The most probable token after the one at a position. */
static int next(int token, int pos)
{
    int dim = shape.dim, l, i, best = 0;

    for (i = 0; i < dim; i++) {
        long j = (long)token * dim + i;
        x[i] = version == 0 ? embedding.floats[j] : (float)embedding.bytes[j] * embedding.scales[j / group];
    }
    for (l = 0; l < shape.layers; l++) {
        long cache = (long)l * shape.seq * kv, here = (long)pos * kv;
        float *k = keys + cache, *v = values + cache;

        normalise(y, x, norm_attention + l * dim);
        multiply(q, &wq, l, y, dim, dim);
        multiply(k + here, &wk, l, y, kv, dim);
        multiply(v + here, &wv, l, y, kv, dim);
        turn(q, dim, pos);
        turn(k + here, kv, pos);
        for (i = 0; i < shape.heads; i++) {
            int of = i / (shape.heads / shape.kv_heads) * head;
            attend(y + i * head, q + i * head, k + of, v + of, scores + (long)i * shape.seq, pos);
        }
        multiply(sum, &wo, l, y, dim, dim);
        add(x, sum);
        normalise(y, x, norm_ffn + l * dim);
        multiply(h, &gate, l, y, shape.hidden, dim);
        multiply(h2, &up, l, y, shape.hidden, dim);
        for (i = 0; i < shape.hidden; i++) {
            h[i] = h[i] * (1.0f / (1.0f + expf(-h[i]))) * h2[i];
        }
        multiply(sum, &down, l, h, dim, shape.hidden);
        add(x, sum);
    }
    normalise(y, x, norm_end);
    multiply(logits, &classifier, 0, y, shape.vocab, dim);
    for (i = 1; i < shape.vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static void print_piece(int before, const char *piece)
{
    unsigned int byte;

    if (before == BOS && piece[0] == ' ') {
        piece++;
    }
    if (strlen(piece) == 6 && sscanf(piece, "<0x%2X>", &byte) == 1) {
        if (isprint((int)byte) || isspace((int)byte)) {
            putchar((int)byte);
        }
    } else if (piece[0] && (piece[1] || isprint((unsigned char)piece[0]) || isspace((unsigned char)piece[0]))) {
        fputs(piece, stdout);
    }
}

int main(int argc, char **argv)
{
    int steps, pos, token = BOS;

    windows = argc > 1 && !strcmp(argv[1], "-w");
    argv += windows;
    argc -= windows;
    if (argc != 4 || sizeof(int) != 4 || sizeof(float) != 4) {
        fprintf(stderr, "usage: story [-w] MODEL TOKENIZER STEPS\n");
        return 2;
    }
    read_model(argv[1]);
    read_tokenizer(argv[2]);
    fprintf(stderr, "version %d, group %d, %s classifier, %.0f bytes\n", version, group, shared ? "shared" : "own",
        accounted);
    steps = atoi(argv[3]);
    steps = steps < 1 || steps > shape.seq ? shape.seq : steps;
    for (pos = 0; pos < steps; pos++) {
        int after = next(token, pos);
        if (after == BOS) {
            break;
        }
        print_piece(token, pieces[after]);
        token = after;
    }
    putchar('\n');
    return 0;
}
