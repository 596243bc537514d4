"""Describes photos on Spark in place of Ray: python examples/cluster/spark.py model.keras photos/ described.parquet

The files that Spark writes have the columns of a cluster's fragments, see docs/cluster.md. `model.keras` is `model.save` of a
model of `rw_keras.build_descriptor`; it and the photos have to be at the same paths on all machines.
"""

import sys

from pyspark.sql import SparkSession


def main(model_file, photos, out, max_side=1024):
    import rw_keras
    from rw_keras.cluster import Settings
    from rw_keras.photos.sources import photo_items

    recipe = {**rw_keras.load_model(model_file).recipe, "max_side": max_side}

    def described(frames):
        from rw_keras.cluster import Describing
        from rw_keras.photos.items import Item

        describing = Describing(model_file, Settings(recipe), workers=2)  # once a task
        for frame in frames:
            todo = [(Item(row.name, row.place, [row.size, row.time]), None) for row in frame.itertuples(index=False)]
            yield describing(todo).to_pandas(integer_object_nulls=True)

    spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 1024).getOrCreate()
    found = [(item.name, item.place, *(item.stamp or (0, 0))) for item in photo_items(photos) if item.fault is None]
    listed = spark.createDataFrame(found, "name string, place string, size long, time long")
    columns = "name string, size long, time long, sha256 string, descriptor array<float>, fault string, passing boolean"
    listed.repartition(max(len(found) // 1024, 1)).mapInPandas(described, columns).write.mode("overwrite").parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
