#!/bin/sh
# The signatures of a model over gRPC, with grpcurl (https://github.com/fullstorydev/grpcurl).
#   MODEL=NAME PROTOSET=RUN/servable/NAME/VERSION/assets.extra/prediction_service.protoset sh grpcurl.sh [default|search|query|items]...
# TensorFlow Serving has no reflection; the protoset beside each version describes its Predict call. TEXTS and LISTS name the inputs beside
# `query`; `tfebr inspect FOLDER` prints whole lines for a given model. Below are those of `tfebr train shop run` (DPSR, simulated shop).
set -eu
: "${MODEL:?name the model: MODEL=dpsr}" "${PROTOSET:?name the file prediction_service.protoset beside the version}"
SERVER=${SERVER:-127.0.0.1:8500}
TEXTS=${TEXTS-user_age user_gender user_power user_region}
LISTS=${LISTS-history_items history_queries}
OTHERS=${OTHERS:-}      # inputs of other types, as JSON members that each begin with a comma
ITEM_TEXTS=${ITEM_TEXTS-brand category leaf_category shop}
QUERY=${QUERY:-red dress}
K=${K:-10}
EXCLUDE=${EXCLUDE:-i0000001 i0000002}
FILTER=${FILTER-price=10..50}      # clauses without spaces; empty for a model without filters
AUTOMATIC=${AUTOMATIC-false}      # also by what the query implies; empty for a model without intents

# Strings are bytes, which protobuf's JSON writes in base64.
coded() { printf '"%s"' "$(printf %s "$1" | base64 | tr -d '\n')"; }
text() { printf '"%s": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": 1}]}, "string_val": [%s]}' "$1" "$(coded "$2")"; }
number() { printf '"%s": {"dtype": "DT_INT32", "tensor_shape": {"dim": [{"size": 1}]}, "int_val": [%s]}' "$1" "$2"; }
# A list begins with padding: see curl.sh.
list() {
  name=$1 values='""' size=1
  shift
  for value; do values="$values, $(coded "$value")" size=$((size + 1)); done
  printf '"%s": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": 1}, {"size": %s}]}, "string_val": [%s]}' "$name" "$size" "$values"
}
inputs() {
  text query "$QUERY"
  for name in $TEXTS; do printf ', '; text "$name" ""; done
  for name in $LISTS; do printf ', '; list "$name"; done
  printf %s "$OTHERS"
}
asked() {
  printf ', '; number k "$K"
  printf ', '; number leaves_to_search 0
  printf ', '; list exclude $EXCLUDE
  [ -z "$FILTER" ] || { printf ', '; list filter $FILTER; }
  [ -z "$AUTOMATIC" ] || printf ', "automatic": {"dtype": "DT_BOOL", "tensor_shape": {"dim": [{"size": 1}]}, "bool_val": [%s]}' "$AUTOMATIC"
}
items() { text title "$QUERY"; for name in $ITEM_TEXTS; do printf ', '; text "$name" ""; done; }
predict() {
  grpcurl -plaintext -max-time 10 -protoset "$PROTOSET" -d "{\"model_spec\": {\"name\": \"$MODEL\", \"signature_name\": \"$1\"}, \"inputs\": {$2}}" \
    "$SERVER" tensorflow.serving.PredictionService/Predict
}

[ $# -gt 0 ] || set -- default search query items
for what; do
  case $what in
    default) predict serving_default "$(inputs)" ;;
    search) predict search "$(inputs)$(asked)" ;;
    query) predict embed_query "$(inputs)" ;;
    items) predict embed_items "$(items)" ;;
    *) echo "unknown: $what" >&2; exit 2 ;;
  esac
done
