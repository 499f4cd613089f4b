/* A call, from the check of its arguments to its last translation. */
#include "run.h"

int qs_translate(const qs_model *model, qs_scratch *scratch, const qs_call *call) {
    qs_run run;
    int status = qs_prepare(&run, model, scratch, call);
    if (status != QS_OK) return status;
    if (model->dims.shortlisted) qs_gather(&run);
    qs_encode(&run);
    if (call->beam_size > 1)
        qs_search(&run);
    else
        qs_decode_greedily(&run);
    return QS_OK;
}
