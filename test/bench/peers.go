package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
	"github.com/klauspost/compress/gzip"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
)

// runOrigin serves 2 KiB pages, slow answers and large bodies on 127.0.0.1 to .N, and prints its port.
func runOrigin(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := first.Addr().(*net.TCPAddr).Port
	server := &http.Server{Handler: originHandler()}
	go server.Serve(first)
	for i := 2; i <= n; i++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%d", i, port))
		if err != nil {
			return err
		}
		go server.Serve(l)
	}
	fmt.Println(port)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}

func originHandler() http.Handler {
	text := strings.Repeat("All work and no play makes a dull page. ", 60)
	block := []byte(strings.Repeat("0123456789abcdef", 4096))
	mux := http.NewServeMux()
	mux.HandleFunc("/p/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		page := r.URL.Path + text // every page another digest
		_, _ = io.WriteString(w, page[:2048])
	})
	var together crowd
	mux.HandleFunc("/wait/", together.wait)
	mux.HandleFunc("/span", together.tell)
	mux.HandleFunc("/slow/", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(900 * time.Millisecond)
		_, _ = io.WriteString(w, "slow")
	})
	mux.HandleFunc("/huge/", func(w http.ResponseWriter, r *http.Request) { // /huge/SIZE, with ?cut=N broken off after N bytes
		size, _ := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/huge/"), 10, 64)
		cut, err := strconv.ParseInt(r.URL.Query().Get("cut"), 10, 64)
		if err != nil {
			cut = size
		}
		w.Header().Set("Etag", `"huge"`)
		http.ServeContent(&cutWriter{w, cut}, r, "", time.Time{}, fetchtest.Resumable(1, size))
	})
	mux.HandleFunc("/sent", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, sentBytes.Load()) })
	mux.HandleFunc("/large/", func(w http.ResponseWriter, _ *http.Request) {
		const size = 200_000_000
		w.Header().Set("Content-Length", strconv.Itoa(size))
		for left := size; left > 0; left -= len(block) {
			if _, err := w.Write(block[:min(left, len(block))]); err != nil {
				return
			}
		}
	})
	return mux
}

// sentBytes is how much was sent of the bodies of /huge/.
var sentBytes atomic.Int64

// cutWriter breaks an answer off after so many bytes of its body.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

// Write sends what may be sent.
func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(int64(len(p)), c.left)])
	sentBytes.Add(int64(n))
	c.left -= int64(n)
	if c.left == 0 && n < len(p) && err == nil {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// runPool is the ceiling: a goroutine pool over net/http that reads URLs from a file and writes the bodies as files.
func runPool(args []string) error {
	list, dir := args[0], args[1]
	if err := fanOut(dir); err != nil {
		return err
	}
	return pool(list, func(client *http.Client, i int, url string) error { return toFile(client, url, bodyPath(dir, i)) })
}

// runAppend is the ceiling for stores that pack: the same pool, which appends each answer to one file, as a gzip member.
func runAppend(args []string) error {
	f, err := os.Create(filepath.Join(args[1], "all.gz"))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	members := sync.Pool{New: func() any { return newMember() }}
	err = pool(args[0], func(client *http.Client, _ int, url string) error {
		m := members.Get().(*member)
		defer members.Put(m)
		if err := m.fetch(client, url); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err := f.Write(m.out.Bytes())
		return err
	})
	return errors.Join(err, f.Close())
}

// member is a buffer for one answer, gzipped.
type member struct {
	out bytes.Buffer
	zip *gzip.Writer
}

func newMember() *member {
	zip, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return &member{zip: zip}
}

func (m *member) fetch(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	m.out.Reset()
	m.zip.Reset(&m.out)
	fmt.Fprintf(m.zip, "%s %s\r\n", resp.Proto, resp.Status)
	if err := resp.Header.Write(m.zip); err != nil {
		return err
	}
	if _, err := io.Copy(m.zip, resp.Body); err != nil {
		return err
	}
	return m.zip.Close()
}

// pool has a pool of goroutines do something with each URL of a list.
func pool(list string, do func(client *http.Client, i int, url string) error) error {
	const workers = 128
	data, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	urls := strings.Fields(string(data))
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: 4 * workers, MaxIdleConnsPerHost: workers, DisableCompression: true}}
	var next atomic.Int64
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(urls) {
					return
				}
				if err := do(client, i, urls[i]); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d pages failed", n)
	}
	return nil
}

func fanOut(dir string) error {
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func bodyPath(dir string, i int) string {
	return filepath.Join(dir, fmt.Sprintf("%02x", i%256), fmt.Sprintf("%064x.html", i))
}

func toFile(client *http.Client, url, path string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		return err
	}
	return f.Close()
}

// runPerURL is the peer: what asynq's own documentation leads to, one task per URL on one server, bodies as files.
// It ends when it has fetched as many as it is told.
func runPerURL(args []string) error {
	addr, dir := args[0], args[1]
	want, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	if err := fanOut(dir); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 128, DisableCompression: true}}
	var done atomic.Int64
	ended := make(chan struct{})
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: addr}, asynq.Config{Concurrency: 128, LogLevel: asynq.ErrorLevel})
	err = server.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		n := done.Add(1)
		if n == want {
			defer close(ended)
		}
		return toFile(client, string(t.Payload()), bodyPath(dir, int(n)))
	}))
	if err != nil {
		return err
	}
	<-ended
	server.Shutdown()
	return nil
}
