#!/bin/sh
# Every signature and address of a model over REST.
#   MODEL=NAME [SERVER=http://HOST:PORT] [...] sh curl.sh [health|metadata|default|search|query|items|attributes|metrics]...
# A server takes no request that lacks an input. REST holds the inputs beside `query`, FILTER those of `search` in a model with filters, ITEM
# those of `embed_items`, each as JSON without braces; `tfebr inspect FOLDER` prints whole lines for a given model. Below are those of
# `tfebr train shop run` (DPSR, simulated shop).
# Lists begin with padding, "" or 0, for servers that merge requests into batches.
set -eu
: "${MODEL:?name the model: MODEL=dpsr sh curl.sh}"
SERVER=${SERVER:-http://127.0.0.1:8501}
REST=${REST:-'"history_items": [""], "history_queries": [""], "user_age": "", "user_gender": "", "user_power": "", "user_region": ""'}
ITEM=${ITEM:-'"title": "red dress", "brand": "", "category": "", "leaf_category": "", "shop": ""'}
QUERY=${QUERY:-red dress}      # no quotes or backslashes: it is pasted into JSON
K=${K:-10}
EXCLUDE=${EXCLUDE:-'"i0000001", "i0000002"'}
# Clauses, all of which hold: "brand=Acme|brand=Zeta", "price=10..50". Empty for a model without filters.
FILTER=${FILTER-'"filter": ["", "price=10..50"], "automatic": false'}
[ -z "$FILTER" ] || FILTER="$FILTER, "

get() { curl -sS --fail-with-body --max-time 10 "$SERVER$1"; echo; }
predict() { curl -sS --fail-with-body --max-time 10 -d "$1" "$SERVER/v1/models/$MODEL:predict"; echo; }
row() { printf '{"signature_name": "%s", "instances": [{%s}]}' "$1" "$2"; }

[ $# -gt 0 ] || set -- health metadata default search query items attributes metrics
for what; do
  case $what in
    health) get "/v1/models/$MODEL" ;;
    metadata) get "/v1/models/$MODEL/metadata" ;;
    metrics) get /monitoring/prometheus/metrics ;;
    default) predict "$(row serving_default "\"query\": \"$QUERY\", $REST")" ;;
    search) predict "$(row search "\"query\": \"$QUERY\", \"k\": $K, \"leaves_to_search\": 0, \"exclude\": [\"\", $EXCLUDE], $FILTER$REST")" ;;
    query) predict "$(row embed_query "\"query\": \"$QUERY\", $REST")" ;;
    items) predict "$(row embed_items "$ITEM")" ;;
    attributes) predict "{\"signature_name\": \"attributes\", \"inputs\": {\"item_ids\": [$EXCLUDE]}}" ;;
    *) echo "unknown: $what" >&2; exit 2 ;;
  esac
done
