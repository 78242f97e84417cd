"""Networks, their objectives and their decoding heads: tensors in, tensors out."""
