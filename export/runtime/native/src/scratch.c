/* The memory of a call: one piece that grows and is kept for the next call. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

struct qs_scratch {
    uint8_t *memory;
    size_t bytes;
};

enum { MAX_ROWS = 8192, MAX_NGRAM = 16384 };

qs_scratch *qs_scratch_new(void) { return calloc(1, sizeof(qs_scratch)); }

void qs_scratch_free(qs_scratch *scratch) {
    if (scratch == NULL) return;
    free(scratch->memory);
    free(scratch);
}

/* --- whether a call can be answered ---------------------------------------------------------- */

static int ids_fit(const int32_t *ids, int count, int rows) {
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= rows) return 0;
    return 1;
}

static int candidates_fit(const qs_model *model, const qs_call *call) {
    if (!model->dims.shortlisted) return call->candidates == NULL;
    if (call->candidates == NULL || call->candidate_counts == NULL) return 0;
    const int32_t *ids = call->candidates;
    for (int row = 0; row < call->rows; row++) {
        int count = call->candidate_counts[row], has_end = 0;
        if (count < 1 || count > model->dims.vocab_size) return 0;
        if (!ids_fit(ids, count, model->dims.vocab_size)) return 0;
        for (int i = 0; i < count; i++) {
            if (i && ids[i] <= ids[i - 1]) return 0;
            has_end |= ids[i] == QS_EOS;
        }
        if (!has_end) return 0;
        ids += count;
    }
    return 1;
}

static int beam_fits(const qs_call *call) {
    if (call->beam_size < 1 || call->beam_size > QS_MAX_BEAM) return 0;
    if (call->n_best < 1 || call->n_best > call->beam_size) return 0;
    if (!(call->length_penalty >= 0.0f && call->length_penalty <= 10.0f)) return 0;
    if (call->beam_size > 1 && call->top_k) return 0;
    return call->rows <= MAX_ROWS / call->beam_size;
}

static int call_fits(const qs_model *model, const qs_call *call) {
    if (call->rows < 1 || call->rows > MAX_ROWS) return 0;
    if (!(call->repetition_penalty >= 1.0f && call->repetition_penalty <= 100.0f)) return 0;
    if (call->no_repeat_ngram < 0 || call->no_repeat_ngram > MAX_NGRAM) return 0;
    if (call->top_k < 0 || call->top_k > model->dims.vocab_size) return 0;
    if (call->top_k && !(call->top_ids && call->top_logp && call->tails)) return 0;
    if (!beam_fits(call)) return 0;
    int most = model->dims.positions - (call->top_k > 0); /* see qs_steps */
    const int32_t *source = call->sources;
    for (int row = 0; row < call->rows; row++) {
        int length = call->lengths[row], limit = call->limits[row];
        if (length < 1 || length > model->dims.positions) return 0;
        if (limit < 1 || limit > most) return 0;
        if (!ids_fit(source, length, model->source_table.rows)) return 0;
        source += length;
    }
    return candidates_fit(model, call);
}

/* --- layout ---------------------------------------------------------------------------------- */

static void measure(qs_run *run) {
    const qs_call *call = run->call;
    const qs_dims *dims = &run->model->dims;
    size_t chunk = 0;
    run->beam = call->beam_size;
    run->most_rows = call->rows * run->beam;
    for (int row = 0; row < call->rows; row++) {
        int length = call->lengths[row], steps = qs_steps(call, row);
        run->padded_tokens += (size_t)qs_padded(length, 8);
        run->padded_steps += (size_t)qs_padded(steps, 8);
        if (length > run->most_length) run->most_length = length;
        if (steps > run->most_length) run->most_length = steps;
        if (length > (int)chunk) chunk = (size_t)length;
    }
    if (chunk < QS_ROWS) chunk = QS_ROWS;
    if (run->most_rows < (int)chunk) run->most_rows = (int)chunk;
    int widest = 3 * dims->width > dims->hidden ? 3 * dims->width : dims->hidden;
    run->wide = (size_t)qs_padded(widest, QS_BLOCK);
    run->narrow = (size_t)qs_padded(dims->width, QS_BLOCK);
    run->byte_stride = (size_t)(dims->width > dims->hidden ? dims->width : dims->hidden);
}

typedef struct {
    uint8_t *memory; /* NULL while the bytes are counted */
    size_t used;
} layout;

static void *place(layout *l, size_t count, size_t item_bytes) {
    size_t at = l->used;
    l->used += (count * item_bytes + 64 + 63) / 64 * 64; /* vectors may be read in full */
    return l->memory == NULL ? NULL : l->memory + at;
}

static size_t count_candidates(const qs_run *run, int row) {
    return (size_t)qs_padded(run->call->candidate_counts[row], QS_BLOCK);
}

static void place_shortlists(qs_run *run, layout *l) {
    size_t rows = (size_t)run->call->rows, width = (size_t)run->model->dims.width;
    run->shortlists = place(l, rows, sizeof(qs_shortlist));
    for (int row = 0; row < run->call->rows; row++) {
        size_t outputs = count_candidates(run, row);
        qs_linear output = {.outputs = (int)outputs, .inputs = (int)width};
        output.packed = place(l, outputs * width, 1);
        output.steps = place(l, outputs, sizeof(float));
        output.bias = place(l, outputs, sizeof(float));
        output.start = place(l, outputs, sizeof(int32_t));
        if (l->memory != NULL) run->shortlists[row].output = output;
    }
}

/* Floats of logits: a panel, or all of some rows. */
static size_t logit_count(const qs_run *run) {
    size_t rows = (size_t)run->call->rows, vocab = (size_t)run->model->dims.vocab_size;
    if (rows > QS_FULL_ROWS) rows = QS_FULL_ROWS;
    if (run->model->dims.shortlisted) rows = 1;
    if (run->beam > 1) rows = QS_FULL_ROWS > run->beam ? QS_FULL_ROWS : (size_t)run->beam;
    size_t all = rows * (vocab + QS_BLOCK);
    return qs_is_plain(run->call) || all < QS_SUMS ? QS_SUMS : all;
}

static void place_gathered(qs_run *run, layout *l) {
    size_t inputs = (size_t)run->model->dims.hidden;
    if (run->model->kernel->sparse == NULL || run->model->dims.activation != QS_RELU) return;
    run->gathered.inputs = place(l, inputs + 16, sizeof(uint16_t));
    run->gathered.bytes = place(l, inputs + 16, 1);
    run->gathered.largest = place(l, inputs + 16, 1);
    run->gathered.terms = place(l, QS_ROWS * inputs + QS_AHEAD, sizeof(qs_term));
}

/* What beam search keeps; `steps` are at least the ids of all hypotheses. */
static void place_search(qs_run *run, layout *l, size_t slots, size_t steps) {
    run->hypotheses = place(l, slots, sizeof(qs_hypothesis));
    run->going = place(l, (size_t)run->call->rows, sizeof(int32_t));
    run->prefixes = place(l, steps, sizeof(int32_t));
    run->found = place(l, 2 * slots, sizeof(qs_found));
    run->found_count = place(l, (size_t)run->call->rows, sizeof(int32_t));
    run->found_ids = place(l, 2 * steps, sizeof(int32_t));
}

static void place_all(qs_run *run, layout *l) {
    const qs_dims *dims = &run->model->dims;
    size_t rows = (size_t)run->most_rows, sentences = (size_t)run->call->rows;
    size_t slots = sentences * (size_t)run->beam;
    size_t steps = run->padded_steps * (size_t)run->beam;
    size_t width = (size_t)dims->width, layers = (size_t)dims->decoder_layers;
    size_t padded = (size_t)qs_padded(run->most_length, 8);
    run->x = place(l, rows * run->narrow, sizeof(float));
    run->y = place(l, rows * run->narrow, sizeof(float));
    run->mix = place(l, rows * run->narrow, sizeof(float));
    run->wide_rows = place(l, rows * run->wide, sizeof(float));
    run->bytes = place(l, rows * run->byte_stride, 1);
    run->row_steps = place(l, rows, sizeof(float));
    run->sums = place(l, QS_SUMS, sizeof(int32_t));
    place_gathered(run, l);
    run->scores = place(l, 4 * padded, sizeof(float));
    run->keys = place(l, padded * width, sizeof(float));
    run->source_at = place(l, sentences, sizeof(size_t));
    run->target_at = place(l, sentences, sizeof(size_t));
    run->written_at = place(l, sentences, sizeof(size_t));
    run->active = place(l, slots, sizeof(int32_t));
    run->last = place(l, slots, sizeof(int32_t));
    run->best = place(l, sentences, sizeof(float));
    run->best_id = place(l, sentences, sizeof(int32_t));
    run->cross_keys = place(l, layers * run->padded_tokens * width, sizeof(float));
    run->cross_values = place(l, layers * run->padded_tokens * width, sizeof(float));
    if (dims->recurrent) {
        run->states = place(l, layers * slots * width, sizeof(float));
    } else {
        run->self_keys = place(l, layers * steps * width, sizeof(float));
        run->self_values = place(l, layers * steps * width, sizeof(float));
    }
    run->logits = place(l, logit_count(run), sizeof(float));
    run->history = place(l, padded, sizeof(int32_t));
    if (run->beam > 1) place_search(run, l, slots, steps);
    if (dims->shortlisted) place_shortlists(run, l);
}

static void place_sentences(qs_run *run) {
    size_t source = 0, target = 0, written = 0;
    for (int row = 0; row < run->call->rows; row++) {
        run->source_at[row] = source;
        run->target_at[row] = target;
        run->written_at[row] = written;
        source += (size_t)qs_padded(run->call->lengths[row], 8);
        target += (size_t)qs_padded(qs_steps(run->call, row), 8);
        written += (size_t)run->call->limits[row];
    }
}

int qs_prepare(qs_run *run, const qs_model *model, qs_scratch *scratch, const qs_call *call) {
    memset(run, 0, sizeof *run);
    run->model = model;
    run->call = call;
    if (!call_fits(model, call)) return QS_BAD_CALL;
    measure(run);
    layout counting = {NULL, 0};
    place_all(run, &counting);
    if (counting.used > scratch->bytes) {
        free(scratch->memory);
        scratch->bytes = 0;
        scratch->memory = aligned_alloc(64, counting.used);
        if (scratch->memory == NULL) return QS_NO_MEMORY;
        memset(scratch->memory, 0, counting.used);
        scratch->bytes = counting.used;
    }
    layout placing = {scratch->memory, 0};
    place_all(run, &placing);
    place_sentences(run);
    return QS_OK;
}
