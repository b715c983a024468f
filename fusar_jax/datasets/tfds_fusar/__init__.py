"""Triplets as a TFDS data set.

`python -m fusar_jax.datasets.tfds_fusar --split train=M --out DIR` builds it,
optionally with Apache Beam. DIR/tfds_fusar/1.0.0/train is then accepted
wherever a manifest is. Neither needs TensorFlow, and this package imports
tensorflow_datasets only when a data set is built or read.
"""
