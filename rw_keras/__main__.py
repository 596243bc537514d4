"""`python -m rw_keras` is `rw-keras`."""

from rw_keras.commands.main import main

if __name__ == "__main__":
    main()
