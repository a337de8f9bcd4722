/* _fast.c - lists of row numbers and addresses of arrays, without the detour that ctypes and numpy take for them. An optional
 * module: _speed.py loads it, and where it is missing ctypes does the same.
 *
 *   Errors    False means "not here": the caller goes the long way, which knows every kind of index and says what is wrong.
 *   Threads   any; the lock of the interpreter is given up while the library works.
 *   Lifetime  nothing is kept between two calls but the address of npk_gen_take(). */
#define Py_LIMITED_API 0x030b0000 /* one file for every Python from 3.11 on */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <numpack.h>
#include <string.h>

#define FEW 512 /* row numbers that find room on the stack */

static __typeof__(&npk_gen_take) gen_take;

static int wants(const char *name, Py_ssize_t want, Py_ssize_t nargs)
{
	if (nargs == want)
		return 0;
	PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", name, want, nargs);
	return -1;
}

/* The elements of a list of `n` ints as numbers; false for bools and other kinds, for numbers of more than 64 bits, and when the
 * list is not that long any more. */
static bool numbers(PyObject *list, Py_ssize_t n, int64_t *out)
{
	if (PyList_Size(list) != n)
		return false;
	for (Py_ssize_t i = 0; i < n; i++) {
		PyObject *v = PyList_GetItem(list, i);
		int overflow;

		if (!PyLong_CheckExact(v))
			return false;
		out[i] = PyLong_AsLongLongAndOverflow(v, &overflow);
		if (overflow)
			return false;
	}
	return true;
}

static PyObject *set_library(PyObject *module, PyObject *address)
{
	void *p = PyLong_AsVoidPtr(address);

	(void)module;
	if (!p && PyErr_Occurred())
		return NULL;
	memcpy(&gen_take, &p, sizeof(gen_take)); /* C has no cast from an object's address to a function's */
	Py_RETURN_NONE;
}

static PyObject *address(PyObject *module, PyObject *a)
{
	PyObject *out;
	Py_buffer b;

	(void)module;
	if (PyObject_GetBuffer(a, &b, PyBUF_SIMPLE) != 0)
		return NULL;
	out = PyLong_FromVoidPtr(b.buf);
	PyBuffer_Release(&b);
	return out;
}

static PyObject *indexes(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	Py_ssize_t n;
	Py_buffer b;
	int64_t count, *row;
	bool good;

	(void)module;
	if (wants("indexes", 3, nargs) != 0)
		return NULL;
	count = PyLong_AsLongLong(args[1]);
	if (count == -1 && PyErr_Occurred())
		return NULL;
	if (!PyList_Check(args[0]))
		Py_RETURN_FALSE;
	if (PyObject_GetBuffer(args[2], &b, PyBUF_WRITABLE) != 0)
		return NULL;
	row = b.buf;
	n = b.len / (Py_ssize_t)sizeof(*row);
	good = numbers(args[0], n, row);
	for (Py_ssize_t i = 0; i < n && good; i++) {
		if (row[i] < 0)
			row[i] += count;
		good = row[i] >= 0 && row[i] < count;
	}
	PyBuffer_Release(&b);
	return PyBool_FromLong(good);
}

static PyObject *take(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	int64_t few[FEW], *row = few;
	struct npk_gen *gen;
	Py_ssize_t n, row_bytes;
	PyObject *out = NULL;
	Py_buffer b;
	int rc = -1;

	(void)module;
	if (wants("take", 4, nargs) != 0)
		return NULL;
	gen = PyLong_AsVoidPtr(args[0]);
	row_bytes = PyLong_AsSsize_t(args[1]);
	if (PyErr_Occurred())
		return NULL;
	if (!gen || !gen_take || row_bytes < 0) {
		PyErr_SetString(PyExc_ValueError, "take() wants a generation, and set_library() before");
		return NULL;
	}
	if (!PyList_Check(args[2]))
		Py_RETURN_FALSE;
	if (PyObject_GetBuffer(args[3], &b, PyBUF_WRITABLE) != 0)
		return NULL;
	n = PyList_Size(args[2]);
	if (n > FEW)
		row = n <= PY_SSIZE_T_MAX / (Py_ssize_t)sizeof(*row) ? PyMem_Malloc((size_t)n * sizeof(*row)) : NULL;
	if (!row)
		PyErr_NoMemory();
	else if ((row_bytes == 0 ? b.len == 0 : b.len % row_bytes == 0 && b.len / row_bytes == n) &&
		 numbers(args[2], n, row)) {
		PyThreadState *state = PyEval_SaveThread();

		rc = gen_take(gen, row, (size_t)n, b.buf, NULL);
		PyEval_RestoreThread(state);
	}
	if (!PyErr_Occurred())
		out = PyBool_FromLong(rc == 0);
	if (row != few)
		PyMem_Free(row);
	PyBuffer_Release(&b);
	return out;
}

static PyMethodDef methods[] = {
	{"set_library", set_library, METH_O, "set_library(address): where npk_gen_take() is. Before the first take()."},
	{"address", address, METH_O, "address(a): where the bytes of a C-contiguous array begin, as a.ctypes.data."},
	{"indexes", (PyCFunction)(void (*)(void))indexes, METH_FASTCALL,
		"indexes(list, n, out): a list of ints as rows 0 .. n - 1, negative ones counted from the end, in "
		"`out`,\n"
		"an int64 array of its length. False, and `out` undefined: an element is no int, or no such row."},
	{"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL,
		"take(gen, row_bytes, list, out): copies the rows that a list of ints names to `out`, an array of as "
		"many.\n"
		"False, and `out` undefined: an element is no int, or no such row, or it could not be read."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "numpackfs._fast",
	.m_doc = "Row numbers and addresses; see _speed.py.",
	.m_size = 0,
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__fast(void);
PyMODINIT_FUNC PyInit__fast(void)
{
	return PyModuleDef_Init(&module);
}
