/* What a vocabulary is made of; for vocab.c, tokenizer.c and detok.c only. */
#ifndef FR_TOKEN_VOCAB_INTERNAL_H
#define FR_TOKEN_VOCAB_INTERNAL_H

#include "token/bpe.h"
#include "token/pretok.h"
#include "token/special.h"
#include "token/spm.h"
#include "token/vocab.h"

struct fr_vocab {
    fr_arena arena; /* the bytes of all texts */
    symbols sy;     /* tokens first */
    uint32_t n;     /* tokens */
    uint8_t *kinds; /* fr_token_kind of each */
    bool *eog;      /* of each: ends a generation */
    int32_t bos, eos;
    bool adds_bos, adds_eos;
    bool is_spm;      /* else byte-level BPE */
    bool adds_blank;  /* SPM: a blank goes before the text */
    special_set user; /* recognised always */
    special_set all;  /* recognised with parse_special: control and unknown ones too */
    bpe_table bpe;
    pretok *pre;
    spm_table spm;
};

#endif
