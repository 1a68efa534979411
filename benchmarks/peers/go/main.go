// Times the store of store.go on an NDJSON file that is read before the clock
// runs: bytes to applied state, line by line, and the first JSON encoding of
// the snapshot afterwards. Prints one JSON object. It says nothing about
// writers that wait for each other: one goroutine does it all, and only Go's
// garbage collector uses another core.
//
//	go-store [-rounds 5] stream.ndjson

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

type totals struct {
	Accepted     int `json:"accepted"`
	Total        int `json:"total"`
	Pending      int `json:"pending"`
	Ready        int `json:"ready"`
	InProgress   int `json:"in_progress"`
	Complete     int `json:"complete"`
	Failed       int `json:"failed"`
	Blocked      int `json:"blocked"`
	CurrentTasks int `json:"current_tasks"`
	Attempts     int `json:"attempts"`
}

type result struct {
	Go              string    `json:"go"`
	FeedSeconds     []float64 `json:"feed_seconds"`
	SnapshotSeconds []float64 `json:"snapshot_seconds"`
	EncodeSeconds   []float64 `json:"encode_seconds"`
	EncodedBytes    int       `json:"encoded_bytes"`
	Rejected        int       `json:"rejected"`
	Totals          totals    `json:"totals"`
}

// feed applies each line of data; returns how many were rejected.
func feed(s *Store, data []byte) (rejected int) {
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var e Event
		if json.Unmarshal(line, &e) != nil || e.Type == "" || s.HandleEvent(&e) != nil {
			rejected++
		}
	}
	return rejected
}

func totalsOf(s *StateSnapshot) totals {
	t := totals{
		Accepted:   s.Version,
		Total:      s.Summary.Total,
		Pending:    s.Summary.Pending,
		Ready:      s.Summary.Ready,
		InProgress: s.Summary.InProgress,
		Complete:   s.Summary.Complete,
		Failed:     s.Summary.Failed,
		Blocked:    s.Summary.Blocked,
	}
	for _, u := range s.Units {
		t.CurrentTasks += u.CurrentTask
		t.Attempts += u.Attempts
	}
	return t
}

func run(path string, rounds int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r := result{Go: runtime.Version()}
	for i := 0; i < rounds; i++ {
		s := NewStore()
		runtime.GC()
		began := time.Now()
		r.Rejected = feed(s, data)
		r.FeedSeconds = append(r.FeedSeconds, time.Since(began).Seconds())

		runtime.GC()
		began = time.Now()
		snapshot := s.Snapshot()
		r.SnapshotSeconds = append(r.SnapshotSeconds, time.Since(began).Seconds())

		runtime.GC()
		began = time.Now()
		encoded, err := json.Marshal(snapshot)
		if err != nil {
			return err
		}
		r.EncodeSeconds = append(r.EncodeSeconds, time.Since(began).Seconds())
		r.EncodedBytes = len(encoded)
		r.Totals = totalsOf(snapshot)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func main() {
	rounds := flag.Int("rounds", 5, "how many times")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: go-store [-rounds 5] stream.ndjson")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "go-store:", err)
		os.Exit(1)
	}
}
