"""A small server that speaks TF Serving's protocols over a loaded SavedModel: the gRPC PredictionService and the REST predict call.

It stands in for TF Serving where that cannot be had: requests and answers are the real messages, the batching, the version
management and the limits of the real server are not there.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, name, signatures):
        self.name, self.signatures = name, signatures

    def Predict(self, request, context):  # noqa: N802, the protocol's name
        if request.model_spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({request.model_spec.name})")
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        try:
            outputs = self.signatures[request.model_spec.signature_name](**inputs)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for key, value in outputs.items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return answer


def _rest(name, signatures):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                if self.path != f"/v1/models/{name}:predict":
                    raise KeyError(f"Malformed request: POST {self.path}")
                signature = signatures[body.get("signature_name", "serving_default")]
                self.answer(200, {"predictions": self.predict(signature, body["instances"])})
            except KeyError as error:
                self.answer(404, {"error": str(error)})
            except tf.errors.InvalidArgumentError as error:
                self.answer(400, {"error": error.message})

        def predict(self, signature, instances):
            """The row format: an object of the inputs for each row, and of the outputs, or the value itself where there is one."""
            specs = signature.structured_input_signature[1]
            rows = [row if isinstance(row, dict) and "b64" not in row else dict.fromkeys(specs, row) for row in instances]
            inputs = {}
            for key, spec in specs.items():
                values = [row[key] for row in rows]
                if spec.dtype == tf.string:
                    values = [base64.b64decode(value["b64"]) for value in values]
                inputs[key] = tf.constant(values, spec.dtype)
            outputs = {key: np.asarray(output).tolist() for key, output in signature(**inputs).items()}
            if len(outputs) == 1:
                return next(iter(outputs.values()))
            return [dict(zip(outputs, row)) for row in zip(*outputs.values())]

        def answer(self, status, content):
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *arguments):
            pass

    return Handler


@contextlib.contextmanager
def served(folder, name):
    """Serves the SavedModel in `folder` as the model `name`; gives the addresses (gRPC, REST) of both protocols."""
    loaded = tf.saved_model.load(str(folder))
    rpc = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Grpc(name, loaded.signatures), rpc)
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _rest(name, loaded.signatures))
    thread = threading.Thread(target=rest.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{port}", f"http://127.0.0.1:{rest.server_port}/v1/models/{name}"
    finally:
        rest.shutdown()
        thread.join()
        rest.server_close()
        rpc.stop(None).wait()
