// Reads .npy files of a mount with an ordinary Go library and prints what it got, one JSON object a line; then holds a
// conversation on the getitem file given as last argument.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kshedden/gonpy"
)

type answer struct {
	Name  string  `json:"name"`
	Dtype string  `json:"dtype"`
	Shape []int   `json:"shape"`
	Sum   float64 `json:"sum"`
	Last  float64 `json:"last"`
}

func summary[T int16 | int32 | int64 | uint8 | float32 | float64](a *answer, values []T, err error) error {
	for _, v := range values {
		a.Sum += float64(v)
		a.Last = float64(v)
	}
	return err
}

func read(path string) (answer, error) {
	a := answer{Name: filepath.Base(path)}
	r, err := gonpy.NewFileReader(path)
	if err != nil {
		return a, err
	}
	a.Dtype, a.Shape = r.Dtype, r.Shape
	switch r.Dtype {
	case "i2":
		v, err := r.GetInt16()
		return a, summary(&a, v, err)
	case "i4":
		v, err := r.GetInt32()
		return a, summary(&a, v, err)
	case "i8":
		v, err := r.GetInt64()
		return a, summary(&a, v, err)
	case "u1":
		v, err := r.GetUint8()
		return a, summary(&a, v, err)
	case "f4":
		v, err := r.GetFloat32()
		return a, summary(&a, v, err)
	case "f8":
		v, err := r.GetFloat64()
		return a, summary(&a, v, err)
	}
	return a, fmt.Errorf("%s: dtype %s", path, r.Dtype)
}

// converse writes a query and reads the answer on the same handle, to its end.
func converse(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	out := ""
	for row := 0; row < 3; row++ {
		if _, err = fmt.Fprintf(f, "sel=%d fmt=text\n", row); err != nil {
			return "", err
		}
		reply, err := io.ReadAll(f)
		if err != nil {
			return "", err
		}
		out += string(reply)
	}
	return out, nil
}

func main() {
	out := json.NewEncoder(os.Stdout)
	last := len(os.Args) - 1
	for _, path := range os.Args[1:last] {
		a, err := read(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, path, err)
			os.Exit(1)
		}
		if err = out.Encode(a); err != nil {
			panic(err)
		}
	}
	text, err := converse(os.Args[last])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err = out.Encode(text); err != nil {
		panic(err)
	}
}
