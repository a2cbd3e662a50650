"""Run a SavedModel by TensorFlow's C API alone: no Python TensorFlow in the process.

Run: python c_api.py LIBRARY SAVED_MODEL REQUEST.json INPUT OUTPUT.npz, where REQUEST
names the input tensor and the output tensors as the SavedModel's signature does. INPUT
is an .npy of floats, or any other file, whose bytes are one string.
"""
# SPDX-License-Identifier: Apache-2.0

import ctypes
import json
import sys

import numpy as np

FLOAT, INT32, STRING = 1, 3, 7
SIZES = {FLOAT: np.float32, INT32: np.int32}
STRING_BYTES = 24  # sizeof(TF_TString)


class Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def functions(path):
    """The library, with what its functions return; pointers need all their bits."""
    library = ctypes.CDLL(path)
    pointers = (
        "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_GraphOperationByName "
        "TF_LoadSessionFromSavedModel TF_AllocateTensor TF_TensorData"
    )
    for name in pointers.split():
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_Dim.restype = ctypes.c_int64
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    return library


def tensor_of(library, value):
    """A TF_Tensor of float32 values, or of one string."""
    shape = (1,) if isinstance(value, bytes) else value.shape
    kind, size = (STRING, STRING_BYTES) if isinstance(value, bytes) else (FLOAT, 0)
    dimensions = (ctypes.c_int64 * len(shape))(*shape)
    length = ctypes.c_size_t(size or value.nbytes)
    tensor = library.TF_AllocateTensor(kind, dimensions, len(shape), length)
    tensor = ctypes.c_void_p(tensor)
    data = ctypes.c_void_p(library.TF_TensorData(tensor))
    if isinstance(value, bytes):
        library.TF_StringInit(data)
        library.TF_StringCopy(data, value, ctypes.c_size_t(len(value)))
    else:
        ctypes.memmove(data, value.ctypes.data, value.nbytes)
    return tensor


def array_of(library, tensor):
    """A NumPy array of a float or int TF_Tensor."""
    tensor = ctypes.c_void_p(tensor)
    dtype = SIZES[library.TF_TensorType(tensor)]
    axes = range(library.TF_NumDims(tensor))
    shape = [library.TF_Dim(tensor, axis) for axis in axes]
    data = ctypes.string_at(
        library.TF_TensorData(tensor), library.TF_TensorByteSize(tensor)
    )
    return np.frombuffer(data, dtype).reshape(shape)


def main(path, folder, request_file, input_file, output_file):
    library = functions(path)
    with open(request_file) as file:
        request = json.load(file)
    if input_file.endswith(".npy"):
        value = np.load(input_file)
    else:
        with open(input_file, "rb") as file:
            value = file.read()
    status = ctypes.c_void_p(library.TF_NewStatus())
    graph = ctypes.c_void_p(library.TF_NewGraph())
    options = ctypes.c_void_p(library.TF_NewSessionOptions())
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = library.TF_LoadSessionFromSavedModel(
        options, None, folder.encode(), tags, 1, graph, None, status
    )
    if library.TF_GetCode(status):
        sys.exit(library.TF_Message(status).decode())

    def output(name):
        operation, index = name.split(":")
        found = library.TF_GraphOperationByName(graph, operation.encode())
        return Output(found, int(index))

    names = request["outputs"]
    fetched = (ctypes.c_void_p * len(names))()
    library.TF_SessionRun(
        ctypes.c_void_p(session),
        None,
        (Output * 1)(output(request["input"])),
        (ctypes.c_void_p * 1)(tensor_of(library, value)),
        1,
        (Output * len(names))(*(output(name) for name in names.values())),
        fetched,
        len(names),
        None,
        0,
        None,
        status,
    )
    if library.TF_GetCode(status):
        sys.exit(library.TF_Message(status).decode())
    arrays = (array_of(library, tensor) for tensor in fetched)
    np.savez(output_file, **dict(zip(names, arrays, strict=True)))
    assert not [name for name in sys.modules if name.startswith("tensorflow")]


if __name__ == "__main__":
    main(*sys.argv[1:])
