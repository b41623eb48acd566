#include "gguf/gguf_internal.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t bytes;
    bool is_int;
} value_types[GGUF_VALUE_TYPES] = {
    [FR_GGUF_U8] = {"u8", 1, true},       [FR_GGUF_I8] = {"i8", 1, true},
    [FR_GGUF_U16] = {"u16", 2, true},     [FR_GGUF_I16] = {"i16", 2, true},
    [FR_GGUF_U32] = {"u32", 4, true},     [FR_GGUF_I32] = {"i32", 4, true},
    [FR_GGUF_F32] = {"f32", 4, false},    [FR_GGUF_BOOL] = {"bool", 1, false},
    [FR_GGUF_STR] = {"string", 0, false}, [FR_GGUF_ARRAY] = {"array", 0, false},
    [FR_GGUF_U64] = {"u64", 8, true},     [FR_GGUF_I64] = {"i64", 8, true},
    [FR_GGUF_F64] = {"f64", 8, false},
};

size_t gguf_type_bytes(uint32_t type)
{
    return type < GGUF_VALUE_TYPES ? value_types[type].bytes : 0;
}

const char *fr_gguf_type_name(fr_gguf_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES ? value_types[type].name : "unknown";
}

bool gguf_type_is_int(fr_gguf_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES && value_types[type].is_int;
}

uint32_t gguf_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t gguf_load_u64(const uint8_t *p)
{
    return gguf_load_u32(p) | (uint64_t)gguf_load_u32(p + 4) << 32;
}

const char *gguf_name_fault(fr_str s, size_t max)
{
    if (s.n == 0)
        return "is empty";
    if (s.n > max)
        return "is too long";
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += (size_t)fr_utf8_decode(s.p + i, s.n - i, &cp);
        if (cp == 0)
            return "has a zero byte inside";
        if (cp == UINT32_MAX)
            return "is not UTF-8";
    }
    return NULL;
}

const char *gguf_quote(fr_str s, char out[GGUF_QUOTED_BYTES])
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        int len = fr_utf8_decode(s.p + i, s.n - i, &cp);
        if (n + 8 > GGUF_QUOTED_BYTES) { /* room for one character and "..." */
            n += (size_t)snprintf(out + n, GGUF_QUOTED_BYTES - n, "...");
            break;
        }
        if (cp < 0x20 || cp == 0x7F || cp == UINT32_MAX)
            n += (size_t)snprintf(out + n, GGUF_QUOTED_BYTES - n, "\\x%02X", (uint8_t)s.p[i]);
        else {
            memcpy(out + n, s.p + i, (size_t)len);
            n += (size_t)len;
        }
        i += (size_t)len;
    }
    out[n] = 0;
    return out;
}

static size_t string_span(const uint8_t *p)
{
    return 8 + (size_t)gguf_load_u64(p);
}

size_t gguf_value_span(const fr_gguf_value *v)
{
    if (v->n == 0)
        return 0;
    if (gguf_type_bytes(v->type))
        return (size_t)v->n * gguf_type_bytes(v->type);
    if (!v->is_array)
        return string_span(v->bytes);
    size_t last = (size_t)v->at[v->n - 1];
    if (v->type == FR_GGUF_STR)
        return last + string_span(v->bytes + last);
    fr_gguf_value inner = fr_gguf_elem_array(v, v->n - 1);
    return last + 12 + gguf_value_span(&inner);
}

fr_str fr_gguf_elem_str(const fr_gguf_value *v, uint64_t i)
{
    if (v->type != FR_GGUF_STR || i >= v->n)
        return FR_STR("");
    const uint8_t *p = v->bytes + (v->is_array ? v->at[i] : 0);
    return (fr_str){(const char *)p + 8, (size_t)gguf_load_u64(p)};
}

/* An integer or bool element as 64 bits, signed types sign-extended. */
static uint64_t load_int(fr_gguf_type type, const uint8_t *p)
{
    uint64_t u = 0;
    size_t n = gguf_type_bytes(type);
    for (size_t i = 0; i < n; i++)
        u |= (uint64_t)p[i] << 8 * i;
    bool is_signed = type == FR_GGUF_I8 || type == FR_GGUF_I16 || type == FR_GGUF_I32;
    if (is_signed && p[n - 1] & 0x80)
        u |= UINT64_MAX << 8 * n;
    return u;
}

int64_t fr_gguf_elem_i64(const fr_gguf_value *v, uint64_t i)
{
    if (i >= v->n || !(gguf_type_is_int(v->type) || v->type == FR_GGUF_BOOL))
        return 0;
    return (int64_t)load_int(v->type, v->bytes + i * gguf_type_bytes(v->type));
}

double fr_gguf_elem_f64(const fr_gguf_value *v, uint64_t i)
{
    if (i >= v->n)
        return 0;
    const uint8_t *p = v->bytes + i * gguf_type_bytes(v->type);
    if (v->type == FR_GGUF_F32) {
        float f;
        memcpy(&f, p, 4);
        return (double)f;
    }
    if (v->type == FR_GGUF_F64) {
        double d;
        memcpy(&d, p, 8);
        return d;
    }
    if (v->type == FR_GGUF_U64)
        return (double)gguf_load_u64(p);
    return (double)fr_gguf_elem_i64(v, i);
}

/* The table of a nested array has 2 n entries: n offsets, then for each element the address of its
 * own table, as a number, or 0. */
fr_gguf_value fr_gguf_elem_array(const fr_gguf_value *v, uint64_t i)
{
    if (v->type != FR_GGUF_ARRAY || i >= v->n)
        return (fr_gguf_value){.type = FR_GGUF_U8, .is_array = true};
    const uint8_t *p = v->bytes + v->at[i];
    return (fr_gguf_value){
        .type = (fr_gguf_type)gguf_load_u32(p),
        .is_array = true,
        .n = gguf_load_u64(p + 4),
        .bytes = p + 12,
        .at = (const uint64_t *)(uintptr_t)v->at[v->n + i],
    };
}
