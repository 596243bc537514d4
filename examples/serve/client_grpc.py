"""Describes photos with a served model over gRPC: half the bytes of REST, and the way to send many.

    pip install tensorflow-serving-api
    python examples/serve/client_grpc.py photo1.jpg photo2.jpg
    python examples/serve/client_grpc.py --box 136,34,648,955 query.jpg

As client_rest.py in all else.
"""

import sys

import grpc
import numpy as np
import tensorflow as tf
from client_rest import RequestError, ServerError, run
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# gRPC's own limit is 4 MB a message, less than one large photo.
_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def describe(channel, photos, boxes=None, model="rw_vgg16", timeout=60):
    """Descriptors `(N, D)` of encoded photos; see client_rest.describe. `channel` is an open gRPC channel."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default" if boxes is None else "query"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(photos, shape=[len(photos)]))
    if boxes is not None:
        request.inputs["box"].CopyFrom(tf.make_tensor_proto(np.asarray(boxes, "float32")))
    try:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
            raise RequestError(error.details()) from error
        raise ServerError(f"the server answered {error.code().name}: {error.details()}") from error
    return tf.make_ndarray(answer.outputs["descriptor"])


def _asking(server):
    channel = grpc.insecure_channel(server, options=_LIMITS)
    return lambda photos, boxes: describe(channel, photos, boxes)


if __name__ == "__main__":
    sys.exit(run(_asking, "localhost:8500", "Describes photos with a served model over gRPC."))
