// Package redis stands in for go-redis, version 9: as much of its interface as the snippets use, with the
// same results and errors, over another client of Redis.
package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gomodule/redigo/redis"
)

// Nil is the error of a null reply.
var Nil = errors.New("redis: nil")

type Options struct {
	Addr        string
	ReadTimeout time.Duration
}

type Client struct{ connection redis.Conn }

// NewClient connects at once, which the library does not.
func NewClient(options *Options) *Client {
	connection, err := redis.Dial("tcp", options.Addr, redis.DialReadTimeout(options.ReadTimeout))
	if err != nil {
		panic(err)
	}
	return &Client{connection}
}

type Cmd struct {
	value interface{}
	err   error
}

// Do sends nothing once the context has ended.
func (client *Client) Do(ctx context.Context, args ...interface{}) *Cmd {
	if err := ctx.Err(); err != nil {
		return &Cmd{nil, err}
	}
	value, err := client.connection.Do(args[0].(string), args[1:]...)
	if err == nil && value == nil {
		err = Nil
	}
	return &Cmd{value, err}
}

func (cmd *Cmd) Int64() (int64, error) {
	if cmd.err != nil {
		return 0, cmd.err
	}
	if number, ok := cmd.value.(int64); ok {
		return number, nil
	}
	return 0, fmt.Errorf("redis: unexpected type=%T for Int64", cmd.value)
}
