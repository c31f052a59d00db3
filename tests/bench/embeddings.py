#!/usr/bin/env python3
"""Make the embeddings that vectors.py searches: embeddings.py COUNT FILE, once; about 10 minutes for 100,000 on one core.

Texts: ICD-10-CM, by the US National Center for Health Statistics, a work of the US government, in the public domain; with
the names of the categories that a code stands in, so that there are enough of them.
Model: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, run by onnxruntime from the weights alone.
"""

import os
import random
import sys
import tempfile

import numpy as np
import onnxruntime
import simple_icd_10_cm as icd
from all_minilm_l6_v2 import extract_model
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

LAYERS, HEADS, WIDTH = 6, 12, 384
LONGEST = 64  # tokens of a text


class Graph:
    """A BERT encoder, the mean of its last layer, and that scaled to unit length."""

    def __init__(self, weights):
        self.weights = {name.removeprefix("bert."): value.astype(np.float32) for name, value in weights.items()}
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def apply(self, operator, *inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def norm(self, x, name):
        scale, bias = (self.constant(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.apply("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def linear(self, x, name):
        product = self.apply("MatMul", x, self.constant(self.weights[f"{name}.weight"].T))
        return self.apply("Add", product, self.constant(self.weights[f"{name}.bias"]))

    def heads(self, x, name, order):
        split = self.apply("Reshape", self.linear(x, name), self.constant(np.array([0, 0, HEADS, WIDTH // HEADS])))
        return self.apply("Transpose", split, perm=order)

    def attention(self, x, name):
        query, value = (self.heads(x, f"{name}.self.{part}", [0, 2, 1, 3]) for part in ("query", "value"))
        scores = self.apply("MatMul", query, self.heads(x, f"{name}.self.key", [0, 2, 3, 1]))
        scale = self.constant(np.float32((WIDTH / HEADS) ** -0.5))
        shares = self.apply("Softmax", self.apply("Mul", scores, scale), axis=-1)
        joined = self.apply("Transpose", self.apply("MatMul", shares, value), perm=[0, 2, 1, 3])
        merged = self.apply("Reshape", joined, self.constant(np.array([0, 0, WIDTH])))
        return self.norm(self.apply("Add", self.linear(merged, f"{name}.output.dense"), x), f"{name}.output.LayerNorm")

    def layer(self, x, name):
        x = self.attention(x, f"{name}.attention")
        inner = self.apply("Gelu", self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(self.apply("Add", self.linear(inner, f"{name}.output.dense"), x), f"{name}.output.LayerNorm")

    def model(self):
        places = self.weights["embeddings.position_embeddings.weight"] + self.weights["embeddings.token_type_embeddings.weight"][0]
        words = self.constant(self.weights["embeddings.word_embeddings.weight"])
        x = self.apply("Add", self.apply("Gather", words, "ids"), self.apply("Gather", self.constant(places), "places"))
        x = self.norm(x, "embeddings.LayerNorm")
        for number in range(LAYERS):
            x = self.layer(x, f"encoder.layer.{number}")
        mean = self.apply("ReduceMean", x, self.constant(np.array([1])), keepdims=0)
        result = self.apply("LpNormalization", mean, axis=-1, p=2)
        value = helper.make_tensor_value_info
        inputs = [value("ids", TensorProto.INT64, ["texts", "length"]), value("places", TensorProto.INT64, ["length"])]
        outputs = [value(result, TensorProto.FLOAT, ["texts", WIDTH])]
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        return model.SerializeToString()


def texts(count):
    """Descriptions first, then longer texts: a description under the name of its category, and of its block."""
    codes = icd.get_all_codes()
    found = dict.fromkeys(icd.get_description(code) for code in codes)
    for above in (1, 2):
        for code in codes:
            parents = icd.get_ancestors(code)[above - 1 : above]
            found.update(dict.fromkeys(f"{icd.get_description(parent)}: {icd.get_description(code)}" for parent in parents))
        if len(found) >= count:
            break
    if len(found) < count:
        sys.exit(f"there are no more than {len(found)} texts")
    return random.Random(13).sample(list(found), count)


def embed(session, tokenizer, texts):
    """Texts of one length go through the model together, so that none is padded."""
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    groups, result = {}, np.empty((len(texts), WIDTH), np.float32)
    for number, ids in enumerate(encoded):
        groups.setdefault(len(ids), []).append(number)
    for length, numbers in groups.items():
        for start in range(0, len(numbers), 32):
            batch = numbers[start : start + 32]
            result[batch] = session.run(None, {"ids": np.array([encoded[n] for n in batch]), "places": np.arange(length)})[0]
    return result


def main():
    count, file = int(sys.argv[1]), sys.argv[2]
    if os.path.exists(file) and os.path.getsize(file) >= 4 * WIDTH * count:
        return
    print(f"Embedding {count} texts, about {1 + count // 10_000} minutes on one core", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        at = extract_model(folder)
        graph = Graph(load_file(os.path.join(at, "model.safetensors"))).model()
        tokenizer = Tokenizer.from_file(os.path.join(at, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    embed(session, tokenizer, texts(count)).astype("<f4").tofile(f"{file}.part")
    os.replace(f"{file}.part", file)


if __name__ == "__main__":
    main()
