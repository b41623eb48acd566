/* Built-in filters over sequences (template_sequences.c), which the filter table names. */
#ifndef FR_TOKEN_TEMPLATE_BUILTINS_H
#define FR_TOKEN_TEMPLATE_BUILTINS_H

#include "token/template_eval.h"

#define TPL_BUILTIN(name) fr_status name(tpl_run *r, tpl_call *c, tpl_value *out)

TPL_BUILTIN(tpl_filter_batch);
TPL_BUILTIN(tpl_filter_dictsort);
TPL_BUILTIN(tpl_filter_first);
TPL_BUILTIN(tpl_filter_groupby);
TPL_BUILTIN(tpl_filter_items);
TPL_BUILTIN(tpl_filter_join);
TPL_BUILTIN(tpl_filter_last);
TPL_BUILTIN(tpl_filter_length);
TPL_BUILTIN(tpl_filter_list);
TPL_BUILTIN(tpl_filter_map);
TPL_BUILTIN(tpl_filter_max);
TPL_BUILTIN(tpl_filter_min);
TPL_BUILTIN(tpl_filter_reject);
TPL_BUILTIN(tpl_filter_rejectattr);
TPL_BUILTIN(tpl_filter_reverse);
TPL_BUILTIN(tpl_filter_select);
TPL_BUILTIN(tpl_filter_selectattr);
TPL_BUILTIN(tpl_filter_slice);
TPL_BUILTIN(tpl_filter_sort);
TPL_BUILTIN(tpl_filter_sum);
TPL_BUILTIN(tpl_filter_unique);

/* The items of a dictionary as one of its views. */
fr_status tpl_dict_view(tpl_run *r, const tpl_dict *d, tpl_flavour flavour, tpl_value *out);

#endif
