-- A team's databases: one for Prefect, two for MLflow (runs, log-ins), each opened by a role of its own.
-- The passwords come from the environment of psql (15 or later), so that no command line and no file holds them:
--   DATABASE_PASSWORD_PREFECT, DATABASE_PASSWORD_MLFLOW
\set ON_ERROR_STOP on
\getenv prefect_password DATABASE_PASSWORD_PREFECT
\getenv mlflow_password DATABASE_PASSWORD_MLFLOW
-- a statement that fails would be logged, password and all
SET log_min_error_statement = panic;
SET log_statement = none;
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
