// An array of a mounted store from Go: save, map, append, drop, search, write in place, a transaction.
//
//	go run contrib/examples/tour.go MOUNTPOINT        # mounted read-write; writes the arrays `tour` and `kept`
//
// A command is carried out when the write returns: a refused one is an error, and last_error says why. For headers of any
// dtype take a library, such as gonpy (tests/clients/go).
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"syscall"
)

// rows gives rows of i, i * i and 1.
func rows(first, last int) []float32 {
	var values []float32
	for i := first; i < last; i++ {
		values = append(values, float32(i), float32(i*i), 1)
	}
	return values
}

// npy is what numpy.save() writes of float32 rows: 128 bytes of header, then the elements.
func npy(values []float32, columns int) []byte {
	var out bytes.Buffer
	text := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", len(values)/columns, columns)
	fmt.Fprintf(&out, "\x93NUMPY\x01\x00v\x00%-117s\n", text)
	for _, v := range values {
		out.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
	}
	return out.Bytes()
}

// mapped calls use with the elements of a .npy file of float32, without a copy of the file.
func mapped(path string, use func(element func(i int) float32, n int)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	data := m[10+int(binary.LittleEndian.Uint16(m[8:])):]
	use(func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])) }, len(data)/4)
	return syscall.Munmap(m)
}

// ask writes a query and prints the lines of the answer, which come on the same handle.
func ask(path, query string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = fmt.Fprintln(f, query); err != nil {
		return err
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fmt.Println("near", lines.Text())
	}
	return lines.Err()
}

func overwrite(path string, at int64, value float32) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(binary.LittleEndian.AppendUint32(nil, math.Float32bits(value)), at)
	return err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatalf("usage: %s MOUNTPOINT", os.Args[0])
	}
	mountpoint := os.Args[1]
	file := mountpoint + "/tour.npy"
	control := mountpoint + "/.numpack/arrays/tour"
	write := func(path string, what []byte) { check(os.WriteFile(path, what, 0o644)) }
	tell := func(path, command string) { write(path, []byte(command+"\n")) }
	shape := func(what, name string) {
		text, err := os.ReadFile(mountpoint + "/.numpack/arrays/" + name + "/shape")
		check(err)
		fmt.Printf("%s %s", what, text)
	}

	write(file, npy(rows(0, 6), 3))
	shape("saved", "tour")

	check(mapped(file, func(element func(int) float32, n int) {
		sum := float32(0)
		for i := 0; i < n; i++ {
			sum += element(i)
		}
		fmt.Println("sum", sum)
	}))

	write(control+"/append", npy(rows(6, 8), 3))
	shape("appended", "tour")

	tell(control+"/drop", "0,-1")
	shape("dropped", "tour")

	check(ask(control+"/search", "k=2 metric=l2sq row=0"))

	check(overwrite(file, 128+4*2, 100)) // row 0, column 2
	check(mapped(file, func(element func(int) float32, _ int) { fmt.Println("wrote", element(2)) }))

	// A directory is a transaction: the whole tree again. Nobody outside sees what is done in it before the commit.
	transaction := fmt.Sprintf("%s/.numpack/batch/tour.%d", mountpoint, os.Getpid())
	check(os.Mkdir(transaction, 0o755))
	whole, err := os.ReadFile(transaction + "/tour.npy")
	check(err)
	write(transaction+"/kept.npy", whole)
	tell(transaction+"/.numpack/arrays/tour/drop", "0:2")
	tell(transaction+"/ctl", "commit")
	shape("kept", "kept")
	shape("tour", "tour")
}
