/* resume: does a checkpoint mean the same in the run that goes on from it? (resume.c) */
#ifndef MOEC_TRAIN_RESUME_H
#define MOEC_TRAIN_RESUME_H

#include "ckpt.h"

enum { RESUME_BYTES = 3000 };

/* What the checkpoint `was` and the run `now` do not share, as the rest of a sentence that begins with the
 * checkpoint's path. "" when nothing differs, or nothing that the checkpoint recorded: an older version's. */
void resume_difference(const ckpt_state *was, const ckpt_state *now, char text[RESUME_BYTES]);

#endif
