// The Swagger UI that Python packages carry draws OpenAPI 3.0 alone. Of 3.1 it draws all that this service uses, once the number is its own.
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((spec) => SwaggerUIBundle({ spec: { ...spec, openapi: "3.0.3" }, dom_id: "#api", deepLinking: true, validatorUrl: null }));
