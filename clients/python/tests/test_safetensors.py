"""Tensors out of safetensors files that the library itself wrote, and files that are none."""

import json
import os
import struct
import tempfile
import unittest

import numpy
import safetensors
import safetensors.numpy

from weightvault import SafeFile


def opened(data, framework="np", **options):
    return SafeFile(data, framework, options.pop("device", None), lambda: None)


def raw(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Tensors(unittest.TestCase):
    def setUp(self):
        types = "bool uint8 int8 uint16 int16 float16 uint32 int32 float32 uint64 int64 float64 complex64".split()
        self.tensors = {name: numpy.arange(-6, 6).reshape(3, 4).astype(name) for name in types}
        self.tensors["scalar"] = numpy.array(7.5, "float32")
        self.tensors["empty"] = numpy.zeros((0, 3), "float16")
        self.data = safetensors.numpy.save(self.tensors, {"format": "np"})

    def test_every_type_and_shape_comes_back(self):
        file = opened(self.data)
        self.assertEqual(file.metadata(), {"format": "np"})
        self.assertEqual(file.keys(), sorted(self.tensors))
        for name, expected in self.tensors.items():
            found = file.get_tensor(name)
            self.assertEqual((found.dtype, found.shape), (expected.dtype, expected.shape), name)
            self.assertEqual(found.tobytes(), expected.tobytes(), name)
            self.assertEqual(file.get_slice(name).get_shape(), list(expected.shape))
        self.assertEqual(file.get_slice("float32").get_dtype(), "F32")
        numpy.testing.assert_array_equal(file.get_slice("int64")[1:, ::2], self.tensors["int64"][1:, ::2])

    def test_the_order_is_that_of_the_library(self):
        with tempfile.NamedTemporaryFile() as temporary:
            temporary.write(self.data)
            temporary.flush()
            with safetensors.safe_open(temporary.name, "np") as theirs:
                self.assertEqual(sorted(theirs.keys()), opened(self.data).keys())
                self.assertEqual(list(theirs.offset_keys()), opened(self.data).offset_keys())

    def test_a_view_is_no_copy(self):
        data = bytearray(self.data)
        tensor = opened(data).get_tensor("uint8")
        self.assertTrue(numpy.shares_memory(tensor, numpy.frombuffer(data, "uint8")))

    def test_types_that_numpy_lacks_say_what_to_do(self):
        data = raw({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"\x80\x3f\x00\x40")
        try:
            import ml_dtypes  # noqa: F401
        except ImportError:
            with self.assertRaisesRegex(TypeError, "ml_dtypes"):
                opened(data).get_tensor("a")
        else:
            self.assertEqual(opened(data).get_tensor("a").astype("float32").tolist(), [1.0, 2.0])

    def test_what_does_not_fit_its_file_is_refused(self):
        good = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
        self.assertEqual(opened(raw({"a": good}, b"xy")).get_tensor("a").tolist(), [120, 121])
        for change in (
            {"data_offsets": [0, 3]},
            {"data_offsets": [1, 3]},
            {"data_offsets": [-1, 1]},
            {"data_offsets": [2, 0]},
            {"shape": [3]},
            {"shape": [-1, -2]},
            {"shape": [2.0]},
            {"dtype": "U16"},
            {"dtype": "X"},
        ):
            with self.assertRaises(ValueError, msg=change):
                opened(raw({"a": {**good, **change}}, b"xy"))
        for data in (b"", b"\0" * 7, struct.pack("<Q", 1), struct.pack("<Q", 2**63) + b"{}"):
            with self.assertRaises(ValueError):
                opened(data)

    def test_frameworks_and_devices_that_are_none(self):
        with self.assertRaises(ValueError):
            opened(self.data, "tf")
        with self.assertRaises(ValueError):
            opened(self.data, "np", device="cuda")
        with self.assertRaises(KeyError):
            opened(self.data).get_tensor("nothing")


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    unittest.main()
