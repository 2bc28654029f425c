"""Against an agent that runs and the plain files of what it holds, as a user who may read and no more.

WEIGHTVAULT_AGENT: its socket. WEIGHTVAULT_TEST_MODEL: MODEL@VERSION. WEIGHTVAULT_TEST_PLAIN: the plain files.
WEIGHTVAULT_TEST_UID: whom to become, once everything is imported.
"""

import importlib.util
import json
import os
import socket
import struct
import tempfile
import threading
import unittest
import warnings

import numpy
import safetensors
import safetensors.numpy

import weightvault

MODEL = os.environ["WEIGHTVAULT_TEST_MODEL"]
PLAIN = os.environ["WEIGHTVAULT_TEST_PLAIN"]
WEIGHTS = "model.safetensors"
HAS_TORCH = importlib.util.find_spec("torch") is not None

if HAS_TORCH:
    # While its files can still be read.
    import safetensors.torch
    import torch


def plain(path):
    with open(os.path.join(PLAIN, path), "rb") as file:
        return file.read()


def plain_paths():
    for directory, _, names in os.walk(PLAIN):
        for name in names:
            yield os.path.relpath(os.path.join(directory, name), PLAIN)


def mapped_from(address):
    """Device and inode of the file that is mapped at an address, and whether it may be written there."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode, _, device, inode = line.split()[:5]
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address < end:
                major, minor = (int(part, 16) for part in device.split(":"))
                return os.makedev(major, minor), int(inode), "w" in mode
    raise ValueError(f"nothing is mapped at {address:#x}")


def resident(kind):
    """Bytes of this process in memory, by /proc/self/status."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(kind))
    return int(line.split()[1]) << 10


class Reader(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # What the plain files hold, while they can still be read.
        cls.plain = {path: plain(path) for path in plain_paths()}
        cls.expected = safetensors.numpy.load(cls.plain[WEIGHTS])
        uid = int(os.environ["WEIGHTVAULT_TEST_UID"])
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    def setUp(self):
        self.model = weightvault.open_model(MODEL, timeout=60)
        self.addCleanup(self.model.close)

    def test_the_agent_lists_what_it_has(self):
        found = [info for info in weightvault.list_models() if f"{info.model}@{info.version}" == MODEL]
        self.assertEqual((len(found), found[0].state), (1, "ready"))
        self.assertEqual((found[0].files, found[0].problem), (len(self.plain), ""))

    def test_every_file_is_what_it_was(self):
        self.assertEqual(dict(self.model.files), {path: len(data) for path, data in self.plain.items()})
        for path, data in self.plain.items():
            self.assertTrue(self.model.read(path) == data, path)

    def test_tensors_equal_those_of_the_plain_file_bit_for_bit_and_are_no_copies(self):
        memory = numpy.frombuffer(self.model.buffer(WEIGHTS), "uint8")
        with self.model.safe_open(WEIGHTS) as file:
            self.assertEqual(file.keys(), sorted(self.expected))
            for name, expected in self.expected.items():
                found = file.get_tensor(name)
                self.assertEqual((found.dtype, found.shape), (expected.dtype, expected.shape), name)
                self.assertTrue(found.tobytes() == expected.tobytes(), name)
                self.assertTrue(numpy.shares_memory(found, memory), name)
        self.assertEqual([name for name, _ in self.model.tensors()], file.offset_keys())

    def test_reading_all_of_it_takes_no_memory_of_this_process(self):
        bytes_of_it = len(self.plain[WEIGHTS])
        own, shared = resident("RssAnon"), resident("RssShmem")
        self.assertGreater(sum(int(numpy.count_nonzero(tensor)) for _, tensor in self.model.tensors()), 1_000_000)
        self.assertLess(resident("RssAnon") - own, bytes_of_it // 4)
        self.assertGreater(resident("RssShmem") - shared, bytes_of_it // 2)

    def test_a_tensor_can_not_be_written_to(self):
        name, tensor = next(self.model.tensors())
        with self.assertRaises(ValueError):
            tensor[...] = 0
        with self.assertRaises(ValueError):
            tensor.flags.writeable = True
        with self.assertRaises(OSError):
            os.open(self.model.path(WEIGHTS), os.O_RDWR)
        with weightvault.open_model(MODEL, copy_on_write=True) as own:
            copy = own.safe_open(WEIGHTS).get_tensor(name)
            before = tensor.tobytes()
            copy[...] = 0
            self.assertEqual((bool(copy.any()), tensor.tobytes()), (False, before))

    def test_the_library_itself_reads_by_path(self):
        theirs = safetensors.numpy.load_file(self.model.path(WEIGHTS))
        self.assertTrue(all(theirs[name].tobytes() == expected.tobytes() for name, expected in self.expected.items()))
        directory = self.model.directory()
        for path, data in self.plain.items():
            with open(os.path.join(directory, path), "rb") as file:
                self.assertTrue(file.read() == data, path)
        self.model.close()
        self.assertFalse(os.path.exists(directory))

    def test_views_outlive_the_model_that_they_are_of(self):
        name, tensor = next(self.model.tensors())
        self.model.close()
        self.assertEqual(tensor.tobytes(), self.expected[name].tobytes())
        with self.assertRaises(ValueError):
            self.model.buffer(WEIGHTS)
        self.model.close()

    def test_what_is_not_there_is_said(self):
        with self.assertRaises(weightvault.Refused) as refused:
            weightvault.open_model("nothing@1")
        self.assertEqual(refused.exception.code, "model-unknown")
        with self.assertRaises(weightvault.Refused) as refused:
            weightvault.open_model("No/Name")
        self.assertEqual(refused.exception.code, "reader-malformed")
        with self.assertRaises(weightvault.AgentError):
            weightvault.open_model(MODEL, agent="/nowhere/agent.sock")
        with self.assertRaises(KeyError):
            self.model.read("nothing")
        with self.assertRaises(ValueError):
            weightvault.open_model("two names")

    def test_nothing_changes_while_the_lease_lasts(self):
        self.model.check()
        self.assertEqual((self.model.change, self.model.wait(0.1)), (None, None))

    def test_a_tensor_lies_where_the_descriptor_of_the_agent_is_mapped(self):
        file = os.stat(self.model.path(WEIGHTS))
        kinds = [("np", lambda tensor: tensor.ctypes.data)]
        if HAS_TORCH:
            kinds.append(("pt", lambda tensor: tensor.data_ptr()))
        # Another opening is another mapping of the same memory.
        with weightvault.open_model(MODEL) as again:
            self.assertEqual(os.stat(again.path(WEIGHTS)).st_ino, file.st_ino)
            for model in self.model, again:
                for framework, address in kinds:
                    for name, tensor in model.tensors(framework):
                        self.assertEqual(mapped_from(address(tensor)), (file.st_dev, file.st_ino, False), name)

    @unittest.skipUnless(HAS_TORCH, "torch is not installed")
    def test_torch_sees_what_the_library_safetensors_gives(self):
        theirs = safetensors.torch.load(self.plain[WEIGHTS])
        with self.model.safe_open(WEIGHTS, framework="pt", device="cpu") as ours:
            self.assertEqual(ours.keys(), sorted(theirs))
            for name, expected in theirs.items():
                found = ours.get_tensor(name)
                self.assertEqual((found.dtype, found.shape), (expected.dtype, expected.shape), name)
                self.assertTrue(torch.equal(found, expected), name)
            part = ours.get_slice("embeddings.word_embeddings.weight")
            self.assertTrue(torch.equal(part[7:9, ::3], theirs["embeddings.word_embeddings.weight"][7:9, ::3]))

    @unittest.skipUnless(HAS_TORCH, "torch is not installed")
    def test_tensors_of_torch_are_the_same_memory(self):
        expected = safetensors.numpy.load(self.plain[WEIGHTS])
        start = numpy.frombuffer(self.model.buffer(WEIGHTS), "uint8").ctypes.data
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = self.model.state_dict("pt")
        self.assertEqual(set(found), set(expected))
        for name, tensor in found.items():
            self.assertTrue(tensor.numpy().tobytes() == expected[name].tobytes(), name)
            self.assertTrue(start <= tensor.data_ptr() < start + len(self.plain[WEIGHTS]), name)


class Liar(unittest.TestCase):
    """What sits at a socket that this process was told to ask, and is no agent."""

    def answer(self, *paths):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(os.path.join(directory.name, "socket"))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection, tempfile.TemporaryFile() as file:
                connection.recv(256)
                for path in paths:
                    text = json.dumps({"frame": "file", "path": path, "bytes": 0}).encode()
                    socket.send_fds(connection, [struct.pack(">I", len(text)) + text], [file.fileno()])
                # Until the reader has had enough.
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        return weightvault.open_model("any", agent=listener.getsockname(), timeout=60)

    def test_a_file_that_would_lie_elsewhere_is_refused(self):
        for path in ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a\0b", 7, None]:
            with self.assertRaisesRegex(weightvault.AgentError, "names a file"):
                self.answer(path)

    def test_a_file_comes_once(self):
        with self.assertRaisesRegex(weightvault.AgentError, "names a file"):
            self.answer("a", "a")


if __name__ == "__main__":
    unittest.main()
