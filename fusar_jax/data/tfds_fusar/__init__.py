"""The triplets as a TFDS data set, for those who keep their data that way.

`python -m fusar_jax.data.tfds_fusar --split train=M --out DIR` builds it, with
Apache Beam if wished; DIR/tfds_fusar/1.0.0/train is then taken wherever a
manifest is. Neither needs TensorFlow, and nothing here imports
tensorflow_datasets before a data set is built or read.
"""
