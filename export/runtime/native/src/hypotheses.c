/* What each hypothesis of a beam has: its prefix, and what the decoder keeps of it.
 *
 * A sentence has as many slots as its beam. The first child of a parent goes on in its slot; a
 * further one gets a copy in a slot whose hypothesis has ended or has no child. There is one for
 * each: of `beam` slots, the parents that have children keep theirs, and no more than `beam`
 * children are chosen.
 */
#include <string.h>

#include "run.h"

/* Keys lie in blocks of eight positions within each head, so that a head's first ones are one
 * piece. */
static void copy_attention(qs_run *run, int from, int to, int positions) {
    const qs_dims *dims = &run->model->dims;
    size_t head_width = (size_t)dims->head_width;
    size_t padded = (size_t)qs_padded(qs_steps(run->call, qs_sentence_of(run, from)), 8);
    size_t whole = run->padded_steps * (size_t)run->beam * (size_t)dims->width;
    size_t key_bytes = (size_t)qs_padded(positions, 8) * head_width * sizeof(float);
    for (int layer = 0; layer < dims->decoder_layers; layer++) {
        int heads = run->model->decoder[layer].sizes.heads;
        size_t width = (size_t)heads * head_width;
        size_t value_bytes = (size_t)positions * width * sizeof(float);
        size_t source = (size_t)layer * whole + qs_slot_at(run, from) * width;
        size_t target = (size_t)layer * whole + qs_slot_at(run, to) * width;
        for (int head = 0; head < heads; head++) {
            size_t at = (size_t)head * padded * head_width;
            memcpy(run->self_keys + target + at, run->self_keys + source + at, key_bytes);
        }
        memcpy(run->self_values + target, run->self_values + source, value_bytes);
    }
}

static void copy_states(qs_run *run, int from, int to) {
    size_t width = (size_t)run->model->dims.width;
    size_t whole = (size_t)run->call->rows * (size_t)run->beam * width;
    for (int layer = 0; layer < run->model->dims.decoder_layers; layer++) {
        float *states = run->states + (size_t)layer * whole;
        memcpy(states + (size_t)to * width, states + (size_t)from * width, width * sizeof(float));
    }
}

static void copy_slot(qs_run *run, int from, int to, int positions) {
    if (run->model->dims.recurrent)
        copy_states(run, from, to);
    else
        copy_attention(run, from, to, positions);
    /* the last position has no id yet */
    memcpy(qs_prefix_of(run, to), qs_prefix_of(run, from),
           (size_t)(positions - 1) * sizeof(int32_t));
}

void qs_branch(qs_run *run, int sentence, qs_hypothesis *children, int count, int positions) {
    int first = sentence * run->beam;
    uint32_t taken = 0, copied = 0; /* slots; children */
    for (int i = 0; i < count; i++) {
        uint32_t slot = (uint32_t)1 << (children[i].slot - first);
        if (taken & slot) copied |= (uint32_t)1 << i;
        taken |= slot;
    }
    for (int i = 0, unused = 0; i < count; i++) {
        if (!(copied >> i & 1)) continue;
        while (taken >> unused & 1) unused++;
        copy_slot(run, children[i].slot, first + unused, positions);
        children[i].slot = first + unused++;
    }
    for (int i = 0; i < count; i++)
        qs_prefix_of(run, children[i].slot)[positions - 1] = children[i].last;
}
