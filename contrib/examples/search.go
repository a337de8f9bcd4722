// The five rows most like row ROW of an array of a mounted store: a line each, its index and its cosine.
//
//	go run contrib/examples/search.go MOUNTPOINT ARRAY ROW
package main

import (
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatalf("usage: %s MOUNTPOINT ARRAY ROW", os.Args[0])
	}
	f, err := os.OpenFile(fmt.Sprintf("%s/.numpack/arrays/%s/search", os.Args[1], os.Args[2]), os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	_, refused := fmt.Fprintf(f, "k=5 metric=cosine row=%s\n", os.Args[3])
	answer, err := io.ReadAll(f) // on the handle that asked; a refused query says why there, too
	if err != nil {
		log.Fatal(err)
	}
	if refused != nil {
		log.Fatalf("%s", answer)
	}
	fmt.Printf("%s", answer)
}
