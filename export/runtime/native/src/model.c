/* Reading a model: a head, the sizes of its layers, then all arrays in a fixed order. How large they
 * are follows, so a model whose bytes are not exactly as many is refused before any is read.
 *
 * In order, little-endian: magic, qs_dims, qs_sizes of all layers; positions float [positions,
 * width]; the target's table, output bias float [vocab_size]; the source's table, if it has one;
 * encoder layers, encoder norm; decoder layers, decoder norm (pre-norm alone has those two norms). A
 * table is steps float [rows], bytes [rows, width]; a linear layer is steps float [outputs], bias
 * float [outputs], bytes [outputs, inputs]; a norm is gain and bias, float [width] each.
 */
#include "model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sparse.h"

static const char MAGIC[8] = {'Q', 'S', 'N', 'A', 'T', 'I', 'V', '2'};
enum { MAX_WIDTH = 8192, MAX_LAYERS = 256, MAX_POSITIONS = 16384, MAX_VOCAB = 1000000 };

int32_t qs_version(void) { return 5; }

/* --- memory that is freed with the model --------------------------------------------------- */

struct qs_block {
    qs_block *next;
};
enum { BLOCK_HEAD = 64 };

static void *allocate(qs_model *model, size_t bytes) {
    /* a whole number of lines; 64 bytes more, since vectors are read in full */
    size_t whole = (bytes + BLOCK_HEAD + 127) / 64 * 64;
    qs_block *block = aligned_alloc(64, whole);
    if (block == NULL) return NULL;
    memset(block, 0, whole);
    block->next = model->blocks;
    model->blocks = block;
    return (uint8_t *)block + BLOCK_HEAD;
}

void qs_model_free(qs_model *model) {
    if (model == NULL) return;
    for (qs_block *block = model->blocks; block != NULL;) {
        qs_block *next = block->next;
        free(block);
        block = next;
    }
    free(model);
}

/* --- the bytes ------------------------------------------------------------------------------- */

typedef struct {
    qs_model *model;
    const uint8_t *data;
    size_t left;
    char *error;
    size_t error_bytes;
    int failed;
} reader;

static void fail(reader *r, const char *format, ...) {
    if (r->failed) return;
    r->failed = 1;
    va_list arguments;
    va_start(arguments, format);
    if (r->error_bytes) vsnprintf(r->error, r->error_bytes, format, arguments);
    va_end(arguments);
}

/* The next bytes, or NULL. */
static const void *take(reader *r, size_t bytes) {
    if (r->failed) return NULL;
    if (bytes > r->left) {
        fail(r, "the model's bytes end too early");
        return NULL;
    }
    const uint8_t *taken = r->data;
    r->data += bytes;
    r->left -= bytes;
    return taken;
}

static void *new_array(reader *r, size_t count, size_t item_bytes) {
    if (r->failed) return NULL;
    void *array = allocate(r->model, count * item_bytes);
    if (array == NULL) fail(r, "there is not enough memory for the model");
    return array;
}

/* `count` finite floats, filled up to `room` with zeros. */
static float *read_floats(reader *r, size_t count, size_t room, const char *what) {
    const void *bytes = take(r, count * sizeof(float));
    float *array = new_array(r, room, sizeof(float));
    if (bytes == NULL || array == NULL) return NULL;
    memcpy(array, bytes, count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        if (!isfinite(array[i])) {
            fail(r, "%s is not finite", what);
            return NULL;
        }
    return array;
}

static float *read_steps(reader *r, size_t count, size_t room) {
    float *steps = read_floats(r, count, room, "a step");
    if (steps == NULL) return NULL;
    for (size_t i = 0; i < count; i++)
        if (steps[i] < 0) fail(r, "a step is negative");
    return r->failed ? NULL : steps;
}

static const int8_t *read_weights(reader *r, int rows, int columns) {
    size_t count = (size_t)rows * (size_t)columns;
    const int8_t *bytes = take(r, count);
    if (bytes != NULL && !qs_weights_fit(bytes, count)) {
        fail(r, "two neighbouring weights exceed %d together", QS_PAIR);
        return NULL;
    }
    return bytes;
}

static void read_norm(reader *r, qs_norm *norm) {
    size_t width = (size_t)r->model->dims.width;
    norm->gain = read_floats(r, width, width, "a norm");
    norm->bias = read_floats(r, width, width, "a norm");
}

/* `around`: whether the bytes that it multiplies lie around 128. */
static void pack_linear(reader *r, qs_linear *linear, const int8_t *weights, int rows, int inputs,
                        int around) {
    size_t padded = (size_t)linear->outputs;
    linear->inputs = inputs;
    linear->packed = new_array(r, padded * (size_t)inputs, 1);
    linear->start = new_array(r, padded, sizeof(int32_t));
    if (weights == NULL || linear->packed == NULL || linear->start == NULL) return;
    qs_pack(weights, rows, inputs, linear->packed);
    if (around) qs_starts(weights, rows, inputs, linear->start);
    if (!r->model->kernel->reorders) return;
    size_t blocks = padded / QS_BLOCK, groups = (size_t)(inputs / QS_GROUP);
    linear->order.places = new_array(r, blocks * QS_ORDER(groups), sizeof(uint16_t));
    linear->order.centres = new_array(r, blocks * QS_CENTRES(groups), sizeof(int16_t));
    linear->order.start = new_array(r, padded, sizeof(int32_t));
    if (r->failed) return;
    if (!qs_reorder(linear->packed, linear->outputs, inputs, linear->start, &linear->order))
        fail(r, "there is not enough memory for the model");
}

static void pack_sparse(reader *r, qs_linear *linear, const int8_t *weights, int inputs) {
    linear->inputs = inputs;
    linear->packed = new_array(r, (size_t)linear->outputs * (size_t)inputs, 1);
    linear->largest = new_array(r, (size_t)inputs, 1);
    if (weights == NULL || linear->packed == NULL || linear->largest == NULL) return;
    qs_pack_sparse(r->model->kernel->sparse, weights, linear->outputs, inputs, linear->packed, linear->largest);
}

static void read_linear(reader *r, qs_linear *linear, int outputs, int inputs, int around) {
    linear->outputs = qs_padded(outputs, QS_BLOCK);
    linear->steps = read_steps(r, (size_t)outputs, (size_t)linear->outputs);
    linear->bias = read_floats(r, (size_t)outputs, (size_t)linear->outputs, "a bias");
    const int8_t *weights = read_weights(r, outputs, inputs);
    const qs_sparse *sparse = r->model->kernel->sparse;
    if (!around && sparse != NULL && outputs % sparse->unit == 0)
        pack_sparse(r, linear, weights, inputs);
    else
        pack_linear(r, linear, weights, outputs, inputs, around);
}

static void read_table(reader *r, qs_table *table, int rows) {
    int width = r->model->dims.width;
    table->rows = rows;
    table->steps = read_steps(r, (size_t)rows, (size_t)rows);
    const int8_t *bytes = read_weights(r, rows, width);
    table->bytes = new_array(r, (size_t)rows * (size_t)width, 1);
    table->start = new_array(r, (size_t)rows, sizeof(int32_t));
    if (bytes == NULL || table->bytes == NULL || table->start == NULL) return;
    memcpy(table->bytes, bytes, (size_t)rows * (size_t)width);
    qs_starts(bytes, rows, width, table->start);
}

/* The output layer: the target's table with its bias. */
static void tie_output(reader *r) {
    qs_model *model = r->model;
    const qs_table *table = &model->table;
    if (r->failed) return;
    for (int id = 0; id <= QS_BOS; id++) model->output_bias[id] = -INFINITY;
    if (model->dims.shortlisted) return;
    qs_linear *output = &model->output;
    size_t rows = (size_t)table->rows;
    output->outputs = qs_padded(table->rows, QS_BLOCK);
    output->steps = new_array(r, (size_t)output->outputs, sizeof(float));
    output->bias = new_array(r, (size_t)output->outputs, sizeof(float));
    pack_linear(r, output, table->bytes, table->rows, model->dims.width, 1);
    if (r->failed) return;
    memcpy(output->steps, table->steps, rows * sizeof(float));
    memcpy(output->bias, model->output_bias, rows * sizeof(float));
    for (int i = table->rows; i < output->outputs; i++) output->bias[i] = -INFINITY;
}

static void read_feed_forward(reader *r, qs_feed_forward *ffn, int hidden) {
    const qs_dims *dims = &r->model->dims;
    read_norm(r, &ffn->norm);
    read_linear(r, &ffn->inner, hidden, dims->width, 1);
    read_linear(r, &ffn->outer, dims->width, hidden, dims->activation != QS_RELU);
}

static void read_encoder_layer(reader *r, qs_encoder_layer *layer) {
    int width = r->model->dims.width, mixed = layer->sizes.heads * r->model->dims.head_width;
    read_norm(r, &layer->norm);
    read_linear(r, &layer->qkv, 3 * mixed, width, 1);
    read_linear(r, &layer->out, width, mixed, 1);
    read_feed_forward(r, &layer->ffn, layer->sizes.hidden);
}

static void read_decoder_layer(reader *r, qs_decoder_layer *layer) {
    const qs_dims *dims = &r->model->dims;
    int width = dims->width, mixed = layer->sizes.heads * dims->head_width;
    int crossed = layer->sizes.cross_heads * dims->head_width;
    read_norm(r, &layer->norm);
    read_linear(r, &layer->qkv, dims->recurrent ? 2 * width : 3 * mixed, width, 1);
    if (!dims->recurrent) read_linear(r, &layer->out, width, mixed, 1);
    read_norm(r, &layer->cross_norm);
    read_linear(r, &layer->query, crossed, width, 1);
    read_linear(r, &layer->key_value, 2 * crossed, width, 1);
    read_linear(r, &layer->cross_out, width, crossed, 1);
    read_feed_forward(r, &layer->ffn, layer->sizes.hidden);
}

static void read_model(reader *r) {
    qs_model *model = r->model;
    const qs_dims *dims = &model->dims;
    size_t places = (size_t)dims->positions * (size_t)dims->width;
    model->positions = read_floats(r, places, places, "a position");
    read_table(r, &model->table, dims->vocab_size);
    size_t vocab = (size_t)dims->vocab_size;
    model->output_bias = read_floats(r, vocab, vocab, "a bias");
    model->source_table = model->table;
    if (dims->source_vocab_size) read_table(r, &model->source_table, dims->source_vocab_size);
    tie_output(r);
    for (int i = 0; i < dims->encoder_layers && !r->failed; i++)
        read_encoder_layer(r, &model->encoder[i]);
    if (!dims->post_norm) read_norm(r, &model->encoder_norm);
    for (int i = 0; i < dims->decoder_layers && !r->failed; i++)
        read_decoder_layer(r, &model->decoder[i]);
    if (!dims->post_norm) read_norm(r, &model->decoder_norm);
}

/* --- sizes ----------------------------------------------------------------------------------- */

static int between(int32_t value, int32_t least, int32_t most) {
    return least <= value && value <= most;
}

static int is_flag(int32_t value) { return between(value, 0, 1); }

static int dims_fit(const qs_dims *d) {
    return between(d->width, 8, MAX_WIDTH) && d->width % 8 == 0 &&
           between(d->head_width, 8, d->width) && d->head_width % 8 == 0 &&
           between(d->hidden, 8, QS_MAX_INPUTS) && d->hidden % 8 == 0 &&
           between(d->encoder_layers, 1, MAX_LAYERS) && between(d->decoder_layers, 1, MAX_LAYERS) &&
           between(d->vocab_size, QS_EOS + 2, MAX_VOCAB) &&
           (d->source_vocab_size == 0 || between(d->source_vocab_size, QS_EOS + 2, MAX_VOCAB)) &&
           between(d->positions, 1, MAX_POSITIONS) && between(d->activation, QS_RELU, QS_GELU) &&
           is_flag(d->post_norm) && is_flag(d->recurrent) && is_flag(d->shortlisted) &&
           d->epsilon > 0 && d->epsilon < 1;
}

/* Heads take no more than the width together: scratch memory is laid out for that. */
static int heads_fit(const qs_dims *d, int32_t heads, int wanted) {
    return wanted ? between(heads, 1, d->width / d->head_width) : heads == 0;
}

static int sizes_fit(const qs_dims *d, const qs_sizes *s, int decodes) {
    return heads_fit(d, s->heads, !decodes || !d->recurrent) &&
           heads_fit(d, s->cross_heads, decodes) && between(s->hidden, 8, d->hidden) &&
           s->hidden % 8 == 0;
}

static size_t linear_bytes(size_t outputs, size_t inputs) { return outputs * (inputs + 8); }

static size_t layer_bytes(const qs_dims *d, const qs_sizes *s) {
    size_t width = (size_t)d->width, hidden = (size_t)s->hidden, norm = 8 * width;
    size_t mixed = (size_t)s->heads * (size_t)d->head_width;
    size_t crossed = (size_t)s->cross_heads * (size_t)d->head_width;
    size_t bytes = norm + linear_bytes(hidden, width) + linear_bytes(width, hidden);
    bytes += norm + (mixed ? linear_bytes(3 * mixed, width) + linear_bytes(width, mixed)
                           : linear_bytes(2 * width, width));
    if (crossed)
        bytes += norm + linear_bytes(3 * crossed, width) + linear_bytes(width, crossed);
    return bytes;
}

/* Bytes after the sizes. All numbers are bounded, so 64 bits are enough. */
static size_t model_bytes(const qs_model *model) {
    const qs_dims *d = &model->dims;
    size_t width = (size_t)d->width;
    size_t bytes = (size_t)d->positions * width * 4 + (d->post_norm ? 0 : 2 * 8 * width) +
                   (size_t)d->vocab_size * (width + 8) +
                   (size_t)d->source_vocab_size * (width + 4);
    for (int i = 0; i < d->encoder_layers; i++) bytes += layer_bytes(d, &model->encoder[i].sizes);
    for (int i = 0; i < d->decoder_layers; i++) bytes += layer_bytes(d, &model->decoder[i].sizes);
    return bytes;
}

static void read_sizes(reader *r, qs_sizes *sizes, int decodes) {
    const void *bytes = take(r, sizeof *sizes);
    if (bytes == NULL) return;
    memcpy(sizes, bytes, sizeof *sizes);
    if (!sizes_fit(&r->model->dims, sizes, decodes)) fail(r, "a layer's size is out of its range");
}

static void read_head(reader *r) {
    const void *magic = take(r, sizeof MAGIC), *head = take(r, sizeof(qs_dims));
    if (magic == NULL || head == NULL || memcmp(magic, MAGIC, sizeof MAGIC) != 0) {
        fail(r, "these are no bytes of a model");
        return;
    }
    qs_model *model = r->model;
    qs_dims *dims = &model->dims;
    memcpy(dims, head, sizeof *dims);
    if (!dims_fit(dims)) {
        fail(r, "a dimension is out of its range");
        return;
    }
    model->encoder = new_array(r, (size_t)dims->encoder_layers, sizeof(qs_encoder_layer));
    for (int i = 0; i < dims->encoder_layers && !r->failed; i++)
        read_sizes(r, &model->encoder[i].sizes, 0);
    model->decoder = new_array(r, (size_t)dims->decoder_layers, sizeof(qs_decoder_layer));
    for (int i = 0; i < dims->decoder_layers && !r->failed; i++)
        read_sizes(r, &model->decoder[i].sizes, 1);
    if (r->failed) return;
    if (r->left != model_bytes(model))
        fail(r, "the model has %zu bytes and needs %zu", r->left, model_bytes(model));
    model->scale = sqrtf((float)dims->width);
    model->attention_scale = 1.0f / sqrtf((float)dims->head_width);
}

qs_model *qs_model_load(const uint8_t *data, size_t bytes, const char *kernel, char *error,
                        size_t error_bytes) {
    reader r = {calloc(1, sizeof(qs_model)), data, bytes, error, error_bytes, 0};
    if (r.model == NULL) {
        fail(&r, "there is not enough memory for the model");
        return NULL;
    }
    r.model->kernel = qs_choose_kernel(kernel);
    if (r.model->kernel == NULL) fail(&r, "this CPU has no kernel of that name");
    read_head(&r);
    if (!r.failed) read_model(&r);
    if (r.failed) {
        qs_model_free(r.model);
        return NULL;
    }
    return r.model;
}

const char *qs_model_kernel(const qs_model *model) { return model->kernel->name; }

int qs_try_product(const char *kernel_name, const uint8_t *bytes, int32_t rows,
                   const int8_t *weights, int32_t outputs, int32_t inputs, int32_t *sums) {
    const qs_kernel *kernel = qs_choose_kernel(kernel_name);
    if (kernel == NULL || rows < 1 || outputs < QS_BLOCK || outputs % QS_BLOCK || inputs < 8 ||
        inputs % 8 || inputs > QS_MAX_INPUTS ||
        !qs_weights_fit(weights, (size_t)outputs * (size_t)inputs))
        return 1;
    int groups = inputs / QS_GROUP, blocks = outputs / QS_BLOCK;
    int8_t *packed = malloc((size_t)outputs * (size_t)inputs);
    int32_t *start = calloc((size_t)outputs, sizeof *start);
    qs_order order = {
        calloc((size_t)blocks * (size_t)QS_ORDER(groups), sizeof(uint16_t)),
        calloc((size_t)blocks * (size_t)QS_CENTRES(groups) + 1, sizeof(int16_t)),
        calloc((size_t)outputs, sizeof(int32_t)),
    };
    int failed = packed == NULL || start == NULL || order.places == NULL ||
                 order.centres == NULL || order.start == NULL;
    if (!failed) {
        qs_pack(weights, outputs, inputs, packed);
        if (kernel->reorders) failed = !qs_reorder(packed, outputs, inputs, start, &order);
    }
    if (!failed)
        kernel->product(bytes, (size_t)inputs, rows, packed, groups,
                        kernel->reorders ? &order : NULL, start, blocks, sums);
    free(packed);
    free(start);
    free(order.places);
    free(order.centres);
    free(order.start);
    return failed;
}

int qs_try_sparse(const char *kernel_name, const uint8_t *bytes, int32_t rows,
                  const int8_t *weights, int32_t outputs, int32_t inputs, int32_t *sums) {
    const qs_kernel *kernel = qs_choose_kernel(kernel_name);
    if (kernel == NULL || kernel->sparse == NULL || rows < 1 || outputs < 1 ||
        outputs % kernel->sparse->unit || inputs < 8 || inputs % 8 || inputs > QS_MAX_INPUTS)
        return 1;
    size_t room = (size_t)inputs + 16;
    int8_t *packed = malloc((size_t)outputs * (size_t)inputs);
    uint8_t *largest = malloc((size_t)inputs);
    qs_gathered scratch = {
        malloc(room * sizeof(uint16_t)), malloc(room), malloc(room),
        calloc((size_t)inputs + QS_AHEAD, sizeof(qs_term)),
    };
    int failed = !packed || !largest || !scratch.inputs || !scratch.bytes || !scratch.largest ||
                 !scratch.terms;
    if (!failed) qs_pack_sparse(kernel->sparse, weights, outputs, inputs, packed, largest);
    for (int row = 0; row < rows && !failed; row++, bytes += inputs, sums += outputs) {
        int count = kernel->sparse->gather(bytes, largest, inputs, &scratch, scratch.terms);
        kernel->sparse->multiply(scratch.terms, count, packed, inputs, outputs, sums);
    }
    free(packed);
    free(largest);
    free(scratch.inputs);
    free(scratch.bytes);
    free(scratch.largest);
    free(scratch.terms);
    return failed;
}
