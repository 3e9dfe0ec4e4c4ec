"""What all tasks share: they compare vectors in float32, whatever precision the towers compute in."""

import tensorflow_recommenders as tfrs


class FullPrecisionRetrieval(tfrs.tasks.Retrieval):
    """`tfrs.tasks.Retrieval` with the dtype policy float32.

    Under a global policy of mixed precision Keras would round the queries alone to bfloat16: they no longer multiply with candidates in
    float32, and a softmax over thousands of scores has hardly a digit left.

    Args:
        **kwargs: as TFRS takes them.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # TFRS hands no `dtype` on to Keras.
        self._set_dtype_policy("float32")
