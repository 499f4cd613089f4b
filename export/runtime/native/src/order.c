/* Groups that AVX2 may sum in 16 bits.
 *
 * Two neighbouring weights of a group give at most 255 times what is positive of them, and at least
 * minus 255 times what is negative. Two groups are a pair where, at each of the 32 places of a block
 * (16 outputs, two neighbours each), both sums are at most QS_PAIR: 255 * 128 = 32,640 < 2^15.
 *
 * Two pairs are a four where the absolute weights at each place sum to QS_FOUR at most. Around 128,
 * a byte is from -128 to 127, so their sum is then at most 128 * 255 = 32,640, too. The sum of the
 * bytes as they are is 128 times that of the weights more; it starts from minus that, the centre,
 * and what wraps on the way there does not matter.
 *
 * In both cases the largest is matched with the smallest that fits, and so on.
 */
#include <stdlib.h>
#include <string.h>

#include "linear.h"

enum { PLACES = 2 * QS_BLOCK, QS_FOUR = 255 };

/* A group, or two. */
typedef struct {
    uint8_t above[PLACES]; /* what is positive; at most QS_PAIR, as the loader has checked */
    uint8_t below[PLACES];
    int largest;
    int taken;
    uint16_t groups[2];
} group_sums;

static group_sums sums_of(const int8_t *group, int index) {
    group_sums found = {.groups = {(uint16_t)index}};
    for (int place = 0; place < PLACES; place++) {
        int above = 0, below = 0;
        for (int i = 0; i < 2; i++) {
            int weight = group[2 * place + i];
            above += weight > 0 ? weight : 0;
            below -= weight < 0 ? weight : 0;
        }
        found.above[place] = (uint8_t)above;
        found.below[place] = (uint8_t)below;
        int larger = above > below ? above : below;
        if (larger > found.largest) found.largest = larger;
    }
    return found;
}

static group_sums both_of(const group_sums *a, const group_sums *b) {
    group_sums both = {.groups = {a->groups[0], b->groups[0]}};
    for (int place = 0; place < PLACES; place++) {
        both.above[place] = (uint8_t)(a->above[place] + b->above[place]);
        both.below[place] = (uint8_t)(a->below[place] + b->below[place]);
        int sum = both.above[place] + both.below[place];
        if (sum > both.largest) both.largest = sum;
    }
    return both;
}

static int are_pair(const group_sums *a, const group_sums *b) {
    int excess = 0;
    for (int place = 0; place < PLACES; place++)
        excess |= (a->above[place] + b->above[place] > QS_PAIR) |
                  (a->below[place] + b->below[place] > QS_PAIR);
    return !excess;
}

static int are_four(const group_sums *a, const group_sums *b) {
    int excess = 0;
    for (int place = 0; place < PLACES; place++)
        excess |= a->above[place] + a->below[place] + b->above[place] + b->below[place] > QS_FOUR;
    return !excess;
}

static int by_size(const void *a, const void *b) {
    const group_sums *one = a, *other = b;
    if (one->largest != other->largest) return other->largest - one->largest;
    return one->groups[0] - other->groups[0];
}

/* Matches of sorted sums: gives how many there are, `found` [2 * matches] what they match, then the
 * others. */
static int match(group_sums *sums, int count, int (*fit)(const group_sums *, const group_sums *),
                 group_sums **found) {
    int matches = 0, last = count;
    qsort(sums, (size_t)count, sizeof *sums, by_size);
    for (int i = 0; i < count; i++) {
        if (sums[i].taken) continue;
        int partner = count - 1;
        while (partner > i && (sums[partner].taken || !fit(&sums[i], &sums[partner]))) partner--;
        sums[i].taken = 1;
        if (partner > i) {
            sums[partner].taken = 1;
            found[2 * matches] = &sums[i];
            found[2 * matches++ + 1] = &sums[partner];
        } else {
            found[--last] = &sums[i];
        }
    }
    return matches;
}

typedef struct {
    group_sums *groups;
    group_sums *pairs;
    group_sums **found; /* [2 * groups] */
} workspace;

static void order_block(workspace *work, int groups, uint16_t *places) {
    group_sums **found = work->found, **matched = work->found + groups;
    int pairs = match(work->groups, groups, are_pair, found);
    for (int i = 0; i < pairs; i++) work->pairs[i] = both_of(found[2 * i], found[2 * i + 1]);
    int fours = match(work->pairs, pairs, are_four, matched);
    places[0] = (uint16_t)fours;
    places[1] = (uint16_t)(pairs - 2 * fours);
    places += 2;
    for (int i = 0; i < pairs; i++) {
        *places++ = matched[i]->groups[0];
        *places++ = matched[i]->groups[1];
    }
    for (int i = 2 * pairs; i < groups; i++) *places++ = found[i]->groups[0];
}

/* Weights of a block in their order, and what its fours and whole sums start from. */
static void arrange(const int8_t *before, int groups, const uint16_t *places, int8_t *packed,
                    int16_t *centres, int32_t *start) {
    enum { BYTES = QS_BLOCK * QS_GROUP };
    for (int g = 0; g < groups; g++)
        memcpy(packed + (size_t)g * BYTES, before + (size_t)places[2 + g] * BYTES, BYTES);
    for (int g = 0; g < 4 * places[0]; g++, packed += BYTES) {
        int16_t *centre = centres + g / 4 * PLACES;
        for (int place = 0; place < PLACES; place++) {
            int sum = packed[2 * place] + packed[2 * place + 1];
            centre[place] = (int16_t)(g % 4 ? centre[place] - 128 * sum : -128 * sum);
            start[place / 2] += 128 * sum;
        }
    }
}

static workspace new_workspace(int groups) {
    return (workspace){
        malloc((size_t)groups * sizeof(group_sums)),
        malloc((size_t)groups * sizeof(group_sums)),
        malloc(2 * (size_t)groups * sizeof(group_sums *)),
    };
}

int qs_reorder(int8_t *packed, int outputs, int inputs, const int32_t *start, qs_order *order) {
    int groups = inputs / QS_GROUP;
    size_t bytes = (size_t)groups * QS_BLOCK * QS_GROUP;
    workspace work = new_workspace(groups);
    int8_t *before = malloc(bytes);
    int enough = before && work.groups && work.pairs && work.found;
    if (enough) memcpy(order->start, start, (size_t)outputs * sizeof *start);
    for (int block = 0; block < outputs / QS_BLOCK && enough; block++, packed += bytes) {
        uint16_t *places = order->places + (size_t)block * (size_t)QS_ORDER(groups);
        for (int g = 0; g < groups; g++)
            work.groups[g] = sums_of(packed + (size_t)g * QS_BLOCK * QS_GROUP, g);
        order_block(&work, groups, places);
        memcpy(before, packed, bytes);
        arrange(before, groups, places, packed,
                order->centres + (size_t)block * (size_t)QS_CENTRES(groups),
                order->start + block * QS_BLOCK);
    }
    free(work.groups);
    free(work.pairs);
    free(work.found);
    free(before);
    return enough;
}
