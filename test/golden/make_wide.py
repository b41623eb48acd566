#!/usr/bin/env python3
"""Makes test/data/logits/wide.*: a small model whose attention is as wide as DeepSeek-V2-Lite's, and
its logits by an implementation that is not ferry's. Run by hand; tests read only what it wrote.

    python3 -m venv v && v/bin/pip install torch transformers gguf
    v/bin/python test/golden/make_wide.py test/data/logits/v2lite.gguf test/data/logits

The logits come from DeepseekV2ForCausalLM of transformers, in which float32 means float64: its norms,
rotation, softmax and router ask for float32 whatever the type of the model.

Weights are random, but attention is not uniform: heads reach from nearly even weights to nearly one
position, latents have columns that are a dozen times the others and of one sign, as those of trained
models. Weights of products are q4_0 whose scales have 6 bits, so f16 holds their values exactly: one
set of logits serves the file as it is and variants of it in f16.

    wide.gguf         the model; vocabulary of the first argument
    wide.ids.txt      600 tokens
    wide.at.txt       the positions whose logits follow
    wide.logits.f32   logits there, [positions][vocabulary]
    wide-act.logits.f32   the same where what kv_b of the first layer reads is rounded to 8 bits as
                      ferry rounds activations (runtime/quant/act.h): groups of 32, largest = 127
"""
import re
import sys

import gguf
import numpy as np
import torch
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

SEED = 20
LAYERS, HIDDEN, HEADS, LORA, ROPE, NOPE, V = 2, 128, 16, 512, 64, 128, 128
DENSE, EXPERTS, USED, EXPERT = 256, 8, 3, 64
YARN = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 0.707,
        "rope_theta": 10000.0}
TOKENS, POSITIONS = 600, 64
BORDERS = (0, 1, 7, 62, 63, 64, 65, 127, 128, 191, 192, 255, 256, 319, 320, 447, 448, 510, 511, 512,
           513, 575, 576, 598, 599)
GAP = 0.1  # between the logits of the last expert that is elected and the first that is not


# ---- weights ---------------------------------------------------------------------------------------

def q4_0(w):
    """Bytes of rows in q4_0, and the values that they hold."""
    blocks = w.reshape(-1, 32)
    most = np.abs(blocks).max(axis=1) / 7.5
    mantissa, exponent = np.frexp(most)
    d = np.ldexp(np.ceil(mantissa * 64) / 64, exponent)
    q = np.clip(np.rint(blocks / d[:, None]), -8, 7)
    values = (q * d[:, None]).reshape(w.shape)
    assert (values.astype(np.float16) == values).all() and (d.astype(np.float16) == d).all()
    codes = (q + 8).astype(np.uint8)
    packed = np.empty((len(blocks), 18), np.uint8)
    packed[:, :2] = d.astype("<f2").view(np.uint8).reshape(-1, 2)
    packed[:, 2:] = codes[:, :16] | codes[:, 16:] << 4
    return packed.reshape(*w.shape[:-1], -1), values


def make_weights():
    """By GGUF name: (form, array)."""
    rng = np.random.default_rng(SEED)

    def matrix(*shape, gain=1.0):
        return gain * rng.standard_normal(shape) / np.sqrt(shape[-1])

    def norm(n, spread=0.3):
        return np.exp(spread * rng.standard_normal(n)).astype(np.float32)

    embedding = rng.standard_normal((N_VOCAB, HIDDEN))
    embedding[:, 0] += 4.0  # nearly the same for every token
    w = {"token_embd": embedding, "output_norm": norm(HIDDEN),
         "output": matrix(N_VOCAB, HIDDEN, gain=2.0)}
    outliers = rng.choice(LORA, 6, replace=False)
    for i in range(LAYERS):
        b = f"blk.{i}."
        q = matrix(HEADS, NOPE + ROPE, HIDDEN) * np.geomspace(0.4, 6.0, HEADS)[:, None, None]
        kv_a = matrix(LORA + ROPE, HIDDEN)
        kv_a[outliers, 0] += 0.4 * rng.choice((-1, 1), len(outliers))
        kv_a_norm = norm(LORA, 0.4)
        kv_a_norm[outliers] *= rng.uniform(6, 14, len(outliers))
        kv_b = matrix(HEADS * (NOPE + V), LORA)
        kv_b[:, outliers] /= 3
        w |= {b + "attn_norm": norm(HIDDEN), b + "attn_q": q.reshape(-1, HIDDEN),
              b + "attn_kv_a_mqa": kv_a, b + "attn_kv_a_norm": kv_a_norm, b + "attn_kv_b": kv_b,
              b + "attn_output": matrix(HIDDEN, HEADS * V, gain=1.5), b + "ffn_norm": norm(HIDDEN)}
        if i == 0:
            w |= {b + "ffn_gate": matrix(DENSE, HIDDEN), b + "ffn_up": matrix(DENSE, HIDDEN),
                  b + "ffn_down": matrix(HIDDEN, DENSE)}
            continue
        w[b + "ffn_gate_inp"] = matrix(EXPERTS, HIDDEN, gain=1.5).astype(np.float32)
        for kind, n in (("exps", (EXPERTS,)), ("shexp", ())):
            w |= {b + "ffn_gate_" + kind: matrix(*n, EXPERT, HIDDEN),
                  b + "ffn_up_" + kind: matrix(*n, EXPERT, HIDDEN),
                  b + "ffn_down_" + kind: matrix(*n, HIDDEN, EXPERT)}
    return w


def write_model(weights, source, path):
    """Writes the file; returns the values that it holds."""
    out = gguf.GGUFWriter(path, "deepseek2")
    out.add_name("random model with wide attention")
    out.add_quantization_version(2)
    out.add_file_type(2)
    out.add_vocab_size(N_VOCAB)
    out.add_block_count(LAYERS)
    out.add_context_length(2048)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(DENSE)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_freq_base(YARN["rope_theta"])
    out.add_layer_norm_rms_eps(1e-6)
    out.add_leading_dense_block_count(1)
    out.add_kv_lora_rank(LORA)
    out.add_key_length(NOPE + ROPE)
    out.add_value_length(V)
    out.add_rope_dimension_count(ROPE)
    out.add_expert_count(EXPERTS)
    out.add_expert_used_count(USED)
    out.add_expert_shared_count(1)
    out.add_expert_feed_forward_length(EXPERT)
    out.add_expert_weights_scale(1.0)
    out.add_expert_weights_norm(False)
    out.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)
    out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    out.add_rope_scaling_factor(YARN["factor"])
    out.add_rope_scaling_orig_ctx_len(YARN["original_max_position_embeddings"])
    out.add_rope_scaling_yarn_log_mul(0.1 * YARN["mscale_all_dim"])
    for name, field in source.fields.items():
        if name.startswith("tokenizer."):
            sub = field.types[1] if len(field.types) > 1 else None
            out.add_key_value(name, field.contents(), field.types[0], sub)
    values = {}
    for name, w in weights.items():
        if w.dtype == np.float32:
            values[name] = w.astype(np.float64)
            out.add_tensor(name + ".weight", w)
        else:
            packed, values[name] = q4_0(w)
            out.add_tensor(name + ".weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return values


# ---- the other implementation ----------------------------------------------------------------------

NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
         "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
         "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm",
         "attn_kv_b": "self_attn.kv_b_proj", "attn_output": "self_attn.o_proj",
         "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate",
         "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
         "ffn_up_shexp": "mlp.shared_experts.up_proj",
         "ffn_down_shexp": "mlp.shared_experts.down_proj"}


def their_weights(values):
    theirs = {}
    for name, w in values.items():
        layer, role = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)", name).groups()
        prefix = f"model.layers.{layer}." if layer else ""
        if role == "ffn_gate_exps":
            w = np.concatenate((w, values[name.replace("gate", "up")]), axis=1)
            theirs[prefix + "mlp.experts.gate_up_proj"] = w
        elif role == "ffn_down_exps":
            theirs[prefix + "mlp.experts.down_proj"] = w
        elif role != "ffn_up_exps":
            theirs[prefix + NAMES[role] + ".weight"] = w
    return {name: torch.from_numpy(w) for name, w in theirs.items()}


def load(values):
    torch.set_default_dtype(torch.float64)
    config = DeepseekV2Config(
        vocab_size=N_VOCAB, hidden_size=HIDDEN, intermediate_size=DENSE, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=163840,
        rms_norm_eps=1e-6, rope_parameters=dict(YARN), first_k_dense_replace=1, kv_lora_rank=LORA,
        q_lora_rank=None, n_routed_experts=EXPERTS, n_shared_experts=1, qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE, v_head_dim=V, num_experts_per_tok=USED, moe_intermediate_size=EXPERT,
        routed_scaling_factor=1.0, topk_method="greedy", norm_topk_prob=False,
        attn_implementation="eager", experts_implementation="eager")
    model = DeepseekV2ForCausalLM(config).eval()
    model.load_state_dict(their_weights(values), strict=True)
    return model


def run(model, ids):
    """Logits of all tokens, the router's, and attention weights by layer."""
    routers = []
    hook = model.model.layers[1].mlp.gate.register_forward_hook(
        lambda module, args, out: routers.append(out[0]))
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=False, output_attentions=True)
    hook.remove()
    return out.logits[0].double().numpy(), routers[0].double().numpy(), out.attentions


def round_activations(x):
    groups = x.reshape(-1, 32)
    d = groups.abs().amax(dim=1, keepdim=True) / 127
    q = groups / d
    return (torch.sign(q) * torch.floor(q.abs() + 0.5) * d).reshape(x.shape)


def choose_positions(routers):
    """Those where rounding can elect no other expert; of the borders of blocks all that are."""
    order = np.sort(routers, axis=1)
    clear = order[:, -USED] - order[:, -USED - 1] > GAP
    chosen = [p for p in BORDERS if clear[p]]
    rest = [p for p in np.random.default_rng(SEED).permutation(TOKENS) if clear[p] and p not in chosen]
    return sorted(chosen + rest[:POSITIONS - len(chosen)])


def describe(attentions):
    for i, weights in enumerate(attentions):
        w = weights[0].double()
        entropy = -(w * torch.log2(w.clamp_min(1e-300))).sum(-1)
        last = entropy[:, TOKENS // 2:].mean(-1)
        print(f"layer {i}: positions by entropy, by head:", *(f"{2 ** e:.0f}" for e in last.tolist()))


def float32_is_float64():
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double


def main():
    global N_VOCAB
    source, folder = gguf.GGUFReader(sys.argv[1]), sys.argv[2]
    N_VOCAB = len(source.fields["tokenizer.ggml.tokens"].contents())
    values = write_model(make_weights(), source, folder + "/wide.gguf")
    ids = [0] + np.random.default_rng(SEED + 1).integers(8, N_VOCAB, TOKENS - 1).tolist()

    single, _, _ = run(load(values).float(), ids)  # as it is published
    float32_is_float64()
    model = load(values)
    exact, routers, attentions = run(model, ids)
    describe(attentions)
    at = choose_positions(routers)
    model.model.layers[0].self_attn.kv_b_proj.register_forward_pre_hook(
        lambda module, args: (round_activations(args[0]),))
    rounded, _, _ = run(model, ids)

    def distance(a, b):
        return np.linalg.norm(a[at] - b[at]) / np.linalg.norm(b[at])

    print("positions", *at)
    print(f"float32 is {distance(single, exact):.3g} away, rounded activations "
          f"{distance(rounded, exact):.3g}; logits {exact.std():.3g}")
    with open(folder + "/wide.ids.txt", "w") as f:
        f.write(" ".join(map(str, ids)) + "\n")
    with open(folder + "/wide.at.txt", "w") as f:
        f.write(" ".join(map(str, at)) + "\n")
    exact[at].astype("<f4").tofile(folder + "/wide.logits.f32")
    rounded[at].astype("<f4").tofile(folder + "/wide-act.logits.f32")


if __name__ == "__main__":
    main()
