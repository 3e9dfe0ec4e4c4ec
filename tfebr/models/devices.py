"""What TensorFlow computes on, in words."""

import os

import tensorflow as tf

from tfebr.infrastructure.native_logs import gpu_present


def describe_devices() -> str:
    """Such as "CPU (8 cores, 8 threads)" or "GPU (2 x NVIDIA A100-SXM4-40GB)"; says so when the machine's GPU is not used."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        names = [tf.config.experimental.get_device_details(gpu).get("device_name", "of unknown kind") for gpu in gpus]
        return f"GPU ({', '.join(f'{names.count(name)} x {name}' for name in dict.fromkeys(names))})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Where neither the program nor the variable says, TensorFlow takes a thread for each core.
    threads = tf.config.threading.get_intra_op_parallelism_threads() or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or cores)
    said = f"CPU ({cores} core{'s' * (cores > 1)}, {threads} thread{'s' * (threads > 1)})"
    if gpu_present():
        said += "; this machine's GPU is not used: TensorFlow's log above says why (all of it with TF_CPP_MIN_LOG_LEVEL=0)"
    return said
