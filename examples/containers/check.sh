#!/bin/sh
# Ask a running server by curl, route by route: sh check.sh [URL] [KEY]
# Ends with 1 at the first answer that is not as it should be.
set -eu
url=${1:-http://127.0.0.1:8642}
key=${2:-${EMBRIEF_API_KEY:-}}

ask() { # what, path, JSON, what the answer must hold
    answer=$(curl -sS --max-time 60 -H "content-type: application/json" ${key:+-H "authorization: Bearer $key"} \
        -w ' status=%{http_code}' -d "$3" "$url$2") || { echo "FAIL $1: no answer"; exit 1; }
    case $answer in
        *"$4"*) echo "ok   $1" ;;
        *) echo "FAIL $1: $(printf %s "$answer" | cut -c 1-400)"; exit 1 ;;
    esac
}

curl -sS --retry 60 --retry-delay 1 --retry-all-errors --fail -o /dev/null "$url/readyz" || { echo "FAIL not ready"; exit 1; }
echo "ok   ready"
ask "OpenAI"              /v1/embeddings '{"input": ["red planet", "blue planet"], "encoding_format": "float"}' '"index":1'
ask "a query's prompt"    /v1/embeddings '{"input": "red planet", "input_type": "query"}' '"usage"'
ask "an unknown model"    /v1/embeddings '{"input": "x", "model": "../etc/passwd"}' 'status=404'
ask "text, model"         /v1/embeddings/generate '{"text": "red planet"}' '"degraded":false'
ask "with a fallback"     /v1/embeddings/generate '{"text": "red planet", "use_fallback": true}' '"answered_by"'
ask "texts"               /encode '{"texts": ["red planet"]}' 'status=200'
ask "one input"           /txt/embed '{"input": "red planet"}' '"embedding"'
ask "Ollama, former"      /api/embeddings '{"model": "embrief/tiny-embedding", "prompt": "red planet"}' '"embedding"'
ask "Ollama"              /api/embed '{"model": "embrief/tiny-embedding", "input": ["red planet"]}' '"embeddings"'
ask "TEI"                 /embed '{"inputs": ["red planet"]}' 'status=200'
ask "TEI rerank"          /rerank '{"query": "red planet", "texts": ["Mars is red.", "Bread is baked."]}' '"score"'
ask "Cohere"              /v2/embed '{"model": "embrief/tiny-embedding", "texts": ["red"], "input_type": "search_query", "embedding_types": ["float"]}' '"float"'
ask "Cohere rerank"       /v2/rerank '{"model": "embrief/tiny-reranker", "query": "red", "documents": ["Mars is red.", "Bread."]}' '"relevance_score"'
ask "Jina rerank"         /v1/rerank '{"model": "embrief/tiny-reranker", "query": "red", "documents": ["Mars is red.", "Bread."], "top_n": 1}' '"relevance_score"'
echo "all routes answer as they should"
