"""The networks of Thomas, Ré & Poldrack 2022 ("LfB"), parameter by parameter, for `variant: lfb`.

Kept from the published system, because its numbers and weights depend on it:

- 8.8: causal sequence modeling has one target per window.
- 8.12: both windows of a pair start at 0 s; the order label is 1 where B does not follow A.
- 8.13: the BERT frameworks pad loss mask and token types on the left although CLS stands at the end, so that the
  output at p + 1 is compared with frame p and segments start one token late; their heads read position 0.
- 8.14: windows are shorter than the longest length, their onsets multiples of their length.
- 8.16: where teacher forcing is drawn, one draw for a batch and only in training, the LSTM generator is fed the
  very frames that it is to predict; states go from layer to layer; the encoder runs over padding.

Not kept: all others, those of the data and of training among them. AdamW's second moment (8.1) is the option
`beta2: 0.9`; a BERT batch counts pairs, as the published batch sizes do (8.15). Times beyond 300 s take the last
step of the time embedding instead of crashing (8.11).

Where the published description leaves a choice, the docstring of the function says what was chosen.
"""
