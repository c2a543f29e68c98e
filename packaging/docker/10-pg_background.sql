-- Run once by the image's entry point, in POSTGRES_DB, when it has made the cluster.
CREATE EXTENSION pg_background_tasks CASCADE;
